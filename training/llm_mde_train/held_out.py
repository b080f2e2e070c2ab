"""Judge predictors on frames that taught nothing: errors per frame and by distance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from llm_mde_core import DepthEstimator, DepthPrediction
from llm_mde_train.baselines import Predictor
from llm_mde_train.metrics import bootstrap, depth_errors, known_depth, mean_over_scenes
from llm_mde_train.profiles import DISTANCES_M, Profile, average_profiles, profile
from llm_mde_train.samples import Sample

SHOWN = ('abs_rel', 'rmse', 'delta1')


@dataclass(frozen=True)
class HeldOut:
    """How a predictor did on some frames, in the order of scenes and times; METRICS of each."""

    scenes: list[str]
    errors: list[dict[str, float]]
    profiles: list[Profile]

    def mean(self, name: str) -> float:
        """Return one of METRICS, mean over the scenes' means over frames."""
        return mean_over_scenes(zip(self.scenes, self.errors, strict=True))['mean'][name]

    def figures(self) -> dict[str, float]:
        """Return abs_rel, rmse in metres and delta1, and the 95 % interval of abs_rel."""
        low, high = bootstrap([frame['abs_rel'] for frame in self.errors], scenes=self.scenes)
        shown = {name: self.mean(name) for name in SHOWN}
        return shown | {'abs_rel_low': low, 'abs_rel_high': high}

    def by_distance(self) -> Profile:
        """Return errors by true distance, bins DISTANCES_M."""
        return average_profiles(zip(self.scenes, self.profiles, strict=True))


def judge(
    predict: Predictor, samples: list[Sample], *, notify: Callable[[], None] = lambda: None
) -> HeldOut:
    """
    Compare predictions and truths, and call `notify` after each sample.

    Samples without known depth are left out; ValueError when no other is left.
    """
    result = HeldOut([], [], [])
    for sample in samples:
        true_m, max_depth_m = sample.depth_m, sample.max_depth_m
        known = known_depth(true_m, max_depth_m=max_depth_m)
        if known.any():
            said_m = predict(sample)
            known &= np.isfinite(said_m)
            by_distance = profile(true_m[known], said_m[known], true_m[known], limits=DISTANCES_M)
            result.scenes.append(sample.scene)
            result.errors.append(depth_errors(said_m, true_m, max_depth_m=max_depth_m))
            result.profiles.append(by_distance)
        notify()
    if not result.errors:
        raise ValueError(f'none of {len(samples)} held-out frames knows any depth in range')
    return result


def predictor(estimator: DepthEstimator) -> Predictor:
    """Return the depth that an estimator gives for a sample, float32 (H, W) metres."""
    return lambda sample: to_be_judged(estimator, sample).depth_m


def to_be_judged(estimator: DepthEstimator, sample: Sample) -> DepthPrediction:
    """Return a prediction whose unknown depth is the farthest: it shall not gain by silence."""
    said = estimator.infer(sample.rgb, sample.camera)
    return replace(said, depth=said.depth.nan_to_num(nan=estimator.depth_range_m[1]))
