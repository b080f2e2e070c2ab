"""
What adaptation has to beat: predictions from the same shots that need no training.

Each function returns a predictor, sample in, depth float32 (H, W) in metres out.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from llm_mde_train.metrics import known_depth
from llm_mde_train.samples import Sample

Predictor = Callable[[Sample], np.ndarray]
PIXELS_PER_SHOT = 4000  # looked at to fit two numbers
ROUNDS = 20  # of reweighting


def constant(shots: list[Sample]) -> Predictor:
    """Predict the median of all known depths everywhere."""
    median_m = _median(shots)
    return lambda sample: np.full_like(sample.depth_m, median_m)


def pixel_median(shots: list[Sample]) -> Predictor:
    """
    Predict each pixel's median over the shots, which is hard to beat when the camera is steady.

    Pixels without any depth get the median of all. Frames of another size get the same picture,
    resized.
    """
    height, width = shots[0].depth_m.shape
    depths = np.stack(
        [
            cv2.resize(_in_range(shot), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
            for shot in shots
        ]
    )
    known = np.isfinite(depths).any(axis=0)
    medians = np.full((height, width), _median(shots), np.float32)
    medians[known] = np.nanmedian(depths[:, known], axis=0)

    def predict(sample: Sample) -> np.ndarray:
        rows, columns = sample.depth_m.shape
        return cv2.resize(medians, (columns, rows), interpolation=cv2.INTER_NEAREST_EXACT)

    return predict


def scale_shift(predict: Predictor, shots: list[Sample]) -> Predictor:
    """Correct a predictor by the scale and the shift that suit the shots best."""
    predicted, true = pixels_of(predict, shots)
    gain, bias = fit_line(predicted, true, weights=1.0 / true)
    low_m, high_m = float(true.min()), float(true.max())
    return lambda sample: (gain * predict(sample) + bias).clip(low_m, high_m)


def pixels_of(predict: Predictor, shots: list[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """Return predicted and true depths of some pixels of every shot, float64 (N,) each."""
    rng = np.random.default_rng(0)
    predicted, true = [], []
    for shot in shots:
        depth_m = predict(shot)
        known = _known(shot) & np.isfinite(depth_m)
        chosen = rng.permutation(np.flatnonzero(known))[:PIXELS_PER_SHOT]
        predicted.append(depth_m.ravel()[chosen])
        true.append(shot.depth_m.ravel()[chosen])
    return np.concatenate(predicted).astype(np.float64), np.concatenate(true).astype(np.float64)


def fit_line(x: np.ndarray, y: np.ndarray, *, weights: np.ndarray) -> tuple[float, float]:
    """
    Return gain and bias that make the weighted sum of |gain·x + bias − y| least, all (N,).

    Absolute differences, not squares: AbsRel is judged by them (with weights 1 / y), and depth
    cameras err by metres along edges.
    """
    now = weights
    gain, bias = 1.0, 0.0
    for _ in range(ROUNDS):
        root = np.sqrt(now)
        columns = np.stack([x * root, root], axis=1)
        gain, bias = np.linalg.lstsq(columns, y * root, rcond=None)[0]
        distance = np.abs(gain * x + bias - y)
        now = weights / np.maximum(distance, 1e-3)
    return float(gain), float(bias)


def _median(shots: list[Sample]) -> float:
    return float(np.median(np.concatenate([shot.depth_m[_known(shot)] for shot in shots])))


def _in_range(shot: Sample) -> np.ndarray:
    return np.where(_known(shot), shot.depth_m, np.nan).astype(np.float32)


def _known(sample: Sample) -> np.ndarray:
    return known_depth(sample.depth_m, max_depth_m=sample.max_depth_m)
