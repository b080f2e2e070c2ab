"""
What a model's confidence is worth.

Confidence is the predicted probability that a depth is within a factor of 1.25 of the truth
(llm_mde_core.frame), so among pixels of confidence 0.7 seven in ten should be. Where they are
not, the spread behind the confidence is multiplied by a factor, fitted on held-out scenes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
import json
import math
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar

from llm_mde_core import DepthEstimator
from llm_mde_train.frame_cache import load_ahead
from llm_mde_train.metrics import DELTA1_RATIO, known_depth
from llm_mde_train.profiles import Profile
from llm_mde_train.samples import Frame
from llm_mde_train.whole_files import write_whole

CONFIDENCES = tuple(np.linspace(0.0, 1.0, 11))
KEPT = tuple(np.linspace(1.0, 0.1, 10))
LOG_SPREADS = np.linspace(-7.0, 4.0, 551)  # ends of bins of the logarithm of spread
LOG_FACTORS = (-3.0, 3.0)  # between which a factor is sought


@dataclass(frozen=True)
class SpreadFit:
    """A factor for the spread of a model, and how far its confidence is from what happens."""

    factor: float  # what config.spread_factor is to be multiplied by
    error_before: float  # calibration errors, 0 to 1, mean over scenes
    error_after: float
    error_left_out: float  # of every scene with the factor of all others; NaN for a single one

    @property
    def helps(self) -> bool:
        """Return whether the factor can be expected to help in a scene that it has not seen."""
        return self.error_left_out < self.error_before


def fit_spread(scenes: Mapping[str, np.ndarray]) -> SpreadFit:
    """
    Find the factor that makes the confidence of a model come true, from `spread_counts`.

    Every scene counts alike. Of few scenes it tells little about others: see `error_left_out`.
    Raises ValueError when there is no scene.
    """
    if not scenes:
        raise ValueError('no frame with known depth to calibrate on')
    counts = list(scenes.values())
    factor = _likeliest_factor(counts)
    others = [counts[:left_out] + counts[left_out + 1 :] for left_out in range(len(counts))]
    left_out = [_likeliest_factor(rest) for rest in others] if len(counts) > 1 else [math.nan]
    return SpreadFit(
        factor=factor,
        error_before=_error(counts, [1.0] * len(counts)),
        error_after=_error(counts, [factor] * len(counts)),
        error_left_out=_error(counts, left_out) if len(counts) > 1 else math.nan,
    )


def spread_counts(
    estimator: DepthEstimator, frames: Iterable[Frame], *, crop: str = 'none'
) -> dict[str, np.ndarray]:
    """
    Return by scene which part of the pixels has a spread and is within the ratio, (2, bins).

    Frames, which should have taught the model nothing, weigh alike within their scene; those
    without known depth are left out.
    """
    by_scene: dict[str, list[np.ndarray]] = defaultdict(list)
    for sample in load_ahead(list(frames)):
        known = known_depth(sample.depth_m, max_depth_m=sample.max_depth_m, crop=crop)
        if known.any():
            said = estimator.infer(sample.rgb, sample.camera)
            known &= np.isfinite(said.depth_m)
            by_scene[sample.scene].append(
                count_spreads(said.confidence[known], said.depth_m[known], sample.depth_m[known])
            )
    return {scene: np.mean(mine, axis=0) for scene, mine in by_scene.items()}


def count_spreads(
    confidence: np.ndarray, predicted_m: np.ndarray, true_m: np.ndarray
) -> np.ndarray:
    """Sort pixels (N,) by spread; return the part in each bin and the part that is right there."""
    with np.errstate(divide='ignore'):  # a confidence of 0 or 1 is in the last bin
        rate = -np.log1p(-confidence.astype(np.float64))  # log(1.25) / spread
        log_spread = math.log(math.log(DELTA1_RATIO)) - np.log(rate)
    bins = np.clip(np.searchsorted(LOG_SPREADS, log_spread) - 1, 0, len(LOG_SPREADS) - 2)
    right = (predicted_m < DELTA1_RATIO * true_m) & (predicted_m > true_m / DELTA1_RATIO)
    counts = [np.bincount(bins, weights, len(LOG_SPREADS) - 1) for weights in (None, right)]
    return np.stack(counts) / max(1, len(bins))


def write_spread_factor(model: Path, factor: float) -> float:
    """Multiply spread_factor in the config.json of a model's folder and return the product."""
    file = model / 'config.json'
    config = json.loads(file.read_text(encoding='utf-8'))
    config['spread_factor'] = config.get('spread_factor', 1.0) * factor
    write_whole(file, json.dumps(config, indent=2, sort_keys=True) + '\n')
    return config['spread_factor']


def _likeliest_factor(scenes: Sequence[np.ndarray]) -> float:
    """Return the factor with which what happened in the scenes was least surprising."""
    share, right = np.mean(scenes, axis=0)

    def surprise(log_factor: float) -> float:
        confidence = _confidence(math.exp(log_factor)).clip(1e-9, 1 - 1e-9)
        return -float(right @ np.log(confidence) + (share - right) @ np.log1p(-confidence))

    return math.exp(minimize_scalar(surprise, bounds=LOG_FACTORS, method='bounded').x)


def _confidence(factor: float) -> np.ndarray:
    """Return the confidence of each bin of spread, times the factor."""
    middle = np.exp((LOG_SPREADS[1:] + LOG_SPREADS[:-1]) / 2)
    return -np.expm1(-math.log(DELTA1_RATIO) / (factor * middle))


def _error(scenes: Sequence[np.ndarray], factors: Sequence[float]) -> float:
    """Return the calibration error of scenes, each with its factor, as `calibration_error`."""
    gaps = np.zeros(len(CONFIDENCES) - 1)
    for (share, right), factor in zip(scenes, factors, strict=True):
        confidence = _confidence(factor)
        bins = np.clip(np.searchsorted(CONFIDENCES, confidence) - 1, 0, len(gaps) - 1)
        gaps += np.bincount(bins, share * confidence - right, len(gaps))
    return float(np.abs(gaps).sum() / len(scenes))


def calibration_error(by_confidence: Profile) -> float:
    """Return how far confidence is from what happens, 0 to 1: mean over pixels, of bins."""
    filled = by_confidence.share > 0
    gap = np.abs(by_confidence.mean - by_confidence.delta1)[filled]
    return float(np.sum(by_confidence.share[filled] * gap) / by_confidence.share.sum())


def kept_abs_rel(certainty: np.ndarray, predicted_m: np.ndarray, true_m: np.ndarray) -> np.ndarray:
    """
    Return abs_rel of the surest parts KEPT of pixels (N,), float64 (10,).

    It falls where certainty knows about errors and stays level where it does not; with the
    negative error itself as `certainty` it falls as far as it can.
    """
    true = true_m.astype(np.float64)
    errors = np.abs(predicted_m - true) / true
    surest = errors[np.argsort(-certainty, kind='stable')]
    means = np.cumsum(surest) / np.arange(1, len(surest) + 1)
    counts = np.maximum(1, np.round(np.array(KEPT) * len(surest)).astype(int))
    return means[counts - 1]
