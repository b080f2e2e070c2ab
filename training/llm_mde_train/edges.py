"""
How sharp a depth image is where one thing ends in front of another.

Two pixels a hundredth of the image's width apart make an edge when their depths differ by more
than a factor; that far, they reach over the seams that sensors leave unknown. Only ratios within
one image count, so the figures hold whatever its metres are worth.
"""

from __future__ import annotations

import cv2
import numpy as np

from llm_mde_train.metrics import known_depth

EDGE_FIGURES = ('edge_sharpness', 'edge_f1', 'flying_pixels')
EDGE_RATIO = 1.25
REACH = 0.01  # of the width
FLYING = (0.25, 0.75)  # part of the way from the near to the far side, in logarithms
BEYOND = 100.0  # more than the logarithm of any depth


def edge_figures(
    predicted_m: np.ndarray, true_m: np.ndarray, *, max_depth_m: float, crop: str = 'none'
) -> dict[str, float]:
    """
    Compare the edges of two depth images (H, W), metres, where both are known.

    Returns the EDGE_FIGURES, 0 to 1, NaN where there are no edges. Sharpness: how much of a true
    edge's step the prediction makes there, in logarithms. F1: of predicted edges that are true
    and true ones that are predicted. Flying pixels: which part of the pixels at true edges
    floats between the two sides, once the prediction has the median of the truth.
    """
    known = known_depth(true_m, max_depth_m=max_depth_m, crop=crop) & np.isfinite(predicted_m)
    known &= predicted_m > 0
    predicted, true = (
        np.log(depth_m, where=known, out=np.full(known.shape, np.nan))
        for depth_m in (predicted_m, true_m)
    )
    reach = max(1, round(REACH * known.shape[1]))
    said, step = _rises(predicted, reach), _rises(true, reach)
    made, real = _edges(said), _edges(step)
    there = real != 0
    sharpness = np.clip(said[there] / step[there], 0.0, 1.0)
    return {
        'edge_sharpness': _part(sharpness.sum(), there.sum()),
        'edge_f1': _part(2 * np.sum(made * real == 1), np.sum(made != 0) + there.sum()),
        'flying_pixels': _flying_pixels(predicted, true, reach),
    }


def _rises(log_depth: np.ndarray, reach: int) -> np.ndarray:
    """Return how much depth rises from each pixel to those `reach` to the right and below."""
    across = log_depth[:, reach:] - log_depth[:, :-reach]
    down = log_depth[reach:] - log_depth[:-reach]
    return np.concatenate([across.ravel(), down.ravel()])


def _edges(rises: np.ndarray) -> np.ndarray:
    """Return +1 for an edge that rises, -1 for one that falls, else 0."""
    return np.where(np.abs(rises) > np.log(EDGE_RATIO), np.sign(rises), 0.0)


def _flying_pixels(predicted: np.ndarray, true: np.ndarray, reach: int) -> float:
    square = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    known = np.isfinite(true)
    near = cv2.erode(np.where(known, true, BEYOND), square)
    far = cv2.dilate(np.where(known, true, -BEYOND), square)
    judged = known & (far - near > np.log(EDGE_RATIO))
    if not judged.any():
        return float('nan')
    aligned = predicted + (np.median(true[known]) - np.median(predicted[known]))
    way = (aligned - near)[judged] / (far - near)[judged]
    return float(np.mean((way > FLYING[0]) & (way < FLYING[1])))


def _part(count: float, of: float) -> float:
    return float(count / of) if of else float('nan')
