"""Judge predictors on frames that taught nothing: errors per frame and by distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llm_mde_core import DepthEstimator
from llm_mde_train.baselines import Predictor
from llm_mde_train.metrics import bootstrap, depth_errors, known_depth
from llm_mde_train.samples import Sample

SHOWN = ('abs_rel', 'rmse', 'delta1')
DISTANCES_M = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, np.inf)


@dataclass(frozen=True)
class Judgement:
    """
    How a predictor did on some frames, in the order of time.

    `frames` holds the errors of each frame; `by_distance` the AbsRel of all pixels whose truth
    lies between two neighbours of `DISTANCES_M`, NaN where there are none.
    """

    frames: list[dict[str, float]]
    by_distance: list[float]

    def mean(self, name: str) -> float:
        """Return the mean over the frames of one metric."""
        return float(np.mean([frame[name] for frame in self.frames]))

    def figures(self) -> dict[str, float]:
        """Return abs_rel, rmse in metres and delta1, and the 95 % interval of abs_rel."""
        low, high = bootstrap([frame['abs_rel'] for frame in self.frames])
        shown = {name: self.mean(name) for name in SHOWN}
        return shown | {'abs_rel_low': low, 'abs_rel_high': high}


def judge(predict: Predictor, samples: list[Sample]) -> Judgement:
    """Compare predictions and truths; ValueError when no frame knows any depth in range."""
    frames, sums, counts = [], np.zeros(len(DISTANCES_M) - 1), np.zeros(len(DISTANCES_M) - 1)
    for sample in samples:
        known = known_depth(sample.depth_m, max_depth_m=sample.max_depth_m)
        if not known.any():
            continue
        predicted_m = predict(sample)
        frames.append(depth_errors(predicted_m, sample.depth_m, max_depth_m=sample.max_depth_m))
        known &= np.isfinite(predicted_m)
        true_m = sample.depth_m[known]
        errors = np.abs(predicted_m[known] - true_m) / true_m
        sums += np.histogram(true_m, DISTANCES_M, weights=errors)[0]
        counts += np.histogram(true_m, DISTANCES_M)[0]
    if not frames:
        raise ValueError(f'none of {len(samples)} held-out frames knows any depth in range')
    by_distance = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return Judgement(frames, by_distance.tolist())


def predictor(estimator: DepthEstimator) -> Predictor:
    """Return the depth that an estimator gives for a sample, float32 (H, W) metres."""
    return lambda sample: estimator.infer(sample.rgb, sample.camera).depth_m
