"""Judge an estimator on samples, in metres, beside what a constant would score."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from llm_mde_core import DepthEstimator
from llm_mde_train.metrics import depth_errors, known_depth, mean_over_scenes
from llm_mde_train.samples import Frame, Sample

Scores = dict[str, dict[str, float]]  # the METRICS per scene and under 'mean'


def evaluate(estimator: DepthEstimator, frames: Iterable[Frame], *, crop: str = 'none') -> Scores:
    """
    Return the estimator's errors per scene and, under 'mean', averaged over scenes.

    `crop` is 'none' or 'eigen'. Frames without any known depth are left out; ValueError when no
    other is left.
    """
    return _judge(
        frames, lambda sample: estimator.infer(sample.rgb, sample.camera).depth_m, crop=crop
    )


def evaluate_constant(depth_m: float, frames: Iterable[Frame], *, crop: str = 'none') -> Scores:
    """Score one depth everywhere, the baseline that anything useful must beat."""
    return _judge(frames, lambda sample: np.full_like(sample.depth_m, depth_m), crop=crop)


def median_depth_m(frames: Iterable[Frame], *, crop: str = 'none') -> float:
    """Return the median of all known depths, metres: the best constant to know beforehand."""
    known = [sample.depth_m[_known(sample, crop)] for sample in (frame.load() for frame in frames)]
    if not any(len(depths) for depths in known):
        raise ValueError('no frame with known depth to take the median of')
    return float(np.median(np.concatenate(known)))


def _judge(
    frames: Iterable[Frame], predict: Callable[[Sample], np.ndarray], *, crop: str
) -> Scores:
    return mean_over_scenes(
        (
            sample.scene,
            depth_errors(
                predict(sample), sample.depth_m, max_depth_m=sample.max_depth_m, crop=crop
            ),
        )
        for sample in (frame.load() for frame in frames)
        if _known(sample, crop).any()
    )


def _known(sample: Sample, crop: str) -> np.ndarray:
    return known_depth(sample.depth_m, max_depth_m=sample.max_depth_m, crop=crop)
