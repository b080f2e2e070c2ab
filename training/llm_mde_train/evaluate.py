"""Judge an estimator on samples, in metres, beside what a constant would score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from llm_mde_core import DepthEstimator, DepthPrediction
from llm_mde_train.calibration import CONFIDENCES, kept_abs_rel
from llm_mde_train.edges import edge_figures
from llm_mde_train.frame_cache import load_ahead
from llm_mde_train.held_out import predictor, to_be_judged
from llm_mde_train.metrics import depth_errors, known_depth, mean_over_scenes
from llm_mde_train.profiles import DISTANCES_M, Profile, profile
from llm_mde_train.samples import Frame, Sample

Scores = dict[str, dict[str, float]]  # the METRICS per scene and under 'mean'


@dataclass(frozen=True)
class Judgement:
    """What is known about the prediction of one frame."""

    frame: Frame
    errors: dict[str, float]  # METRICS
    constant_errors: dict[str, float]  # METRICS of the constant depth beside it
    flat_errors: dict[str, float]  # METRICS of this frame's own median: flat, and told its scale
    edges: dict[str, float]  # EDGE_FIGURES
    by_distance: Profile  # bins DISTANCES_M
    by_confidence: Profile  # bins CONFIDENCES
    kept: np.ndarray  # (10,) abs_rel of the surest parts KEPT
    kept_at_best: np.ndarray  # the same for a confidence that knows all errors


def evaluate(estimator: DepthEstimator, frames: Iterable[Frame], *, crop: str = 'none') -> Scores:
    """
    Return the estimator's errors per scene and, under 'mean', averaged over scenes.

    `crop` is one of metrics.CROPS. Frames without any known depth are left out; ValueError when
    no other is left.
    """
    return _scores(frames, predictor(estimator), crop=crop)


def evaluate_constant(depth_m: float, frames: Iterable[Frame], *, crop: str = 'none') -> Scores:
    """Score one depth everywhere, the baseline that anything useful must beat."""
    return _scores(frames, lambda sample: np.full_like(sample.depth_m, depth_m), crop=crop)


def judge_frames(
    estimator: DepthEstimator, frames: Iterable[Frame], *, constant_m: float, crop: str = 'none'
) -> Iterator[Judgement]:
    """Judge frame by frame, in every respect; frames without any known depth are left out."""
    frames = list(frames)
    for frame, sample in zip(frames, load_ahead(frames), strict=True):
        if _known(sample, crop).any():
            prediction = to_be_judged(estimator, sample)
            yield _judge(frame, sample, prediction, constant_m=constant_m, crop=crop)


def median_depth_m(frames: Iterable[Frame], *, crop: str = 'none') -> float:
    """Return the median of all known depths, to the millimetre: the best constant to know."""
    return median_of_counts(depth_counts(frames, crop=crop))


def depth_counts(frames: Iterable[Frame], *, crop: str = 'none') -> np.ndarray:
    """Count the known pixels of each millimetre of depth, int (N,), whatever their number."""
    total = np.zeros(1, np.int64)
    for sample in load_ahead(frames):
        depth_mm = np.rint(sample.depth_m[_known(sample, crop)] * 1000.0).astype(np.int64)
        counts = np.bincount(depth_mm, minlength=len(total))
        counts[: len(total)] += total
        total = counts
    return total


def median_of_counts(counts: np.ndarray) -> float:
    """Return the median depth in metres of `depth_counts`; ValueError when there are none."""
    up_to, pixels = np.cumsum(counts), counts.sum()
    if not pixels:
        raise ValueError('no frame with known depth to take the median of')
    middle_mm = np.searchsorted(up_to, [(pixels + 1) // 2, pixels // 2 + 1])
    return float(middle_mm.mean() / 1000.0)


def _scores(
    frames: Iterable[Frame], predict: Callable[[Sample], np.ndarray], *, crop: str
) -> Scores:
    return mean_over_scenes(
        (
            sample.scene,
            depth_errors(
                predict(sample), sample.depth_m, max_depth_m=sample.max_depth_m, crop=crop
            ),
        )
        for sample in load_ahead(frames)
        if _known(sample, crop).any()
    )


def _judge(
    frame: Frame,
    sample: Sample,
    prediction: DepthPrediction,
    *,
    constant_m: float,
    crop: str,
) -> Judgement:
    said, true = prediction.depth_m, sample.depth_m
    known = _known(sample, crop)
    valid = known & np.isfinite(said)
    flat_m = float(np.median(true[known]))

    def errors_of(depth_m: np.ndarray) -> dict[str, float]:
        return depth_errors(depth_m, true, max_depth_m=sample.max_depth_m, crop=crop)

    pixels = (said[valid], true[valid])
    confidence = prediction.confidence[valid]
    return Judgement(
        frame=frame,
        errors=errors_of(said),
        constant_errors=errors_of(np.full_like(true, constant_m)),
        flat_errors=errors_of(np.full_like(true, flat_m)),
        edges=edge_figures(said, true, max_depth_m=sample.max_depth_m, crop=crop),
        by_distance=profile(true[valid], *pixels, limits=DISTANCES_M),
        by_confidence=profile(confidence, *pixels, limits=CONFIDENCES),
        kept=kept_abs_rel(confidence, *pixels),
        kept_at_best=kept_abs_rel(-np.abs(said - true)[valid] / true[valid], *pixels),
    )


def _known(sample: Sample, crop: str) -> np.ndarray:
    return known_depth(sample.depth_m, max_depth_m=sample.max_depth_m, crop=crop)
