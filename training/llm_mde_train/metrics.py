"""
Errors of depth, metres against metres, on pixels whose truth is known.

They are averaged per image, then over the images of a scene, then over scenes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

METRICS = ('abs_rel', 'rmse', 'delta1', 'coverage', 'abs_rel_median_aligned')
MIN_DEPTH_M = 1e-3
CROPS = ('none', 'eigen')
EIGEN_CROP = np.s_[45:471, 41:601]  # Eigen et al. 2014; rows and columns of 480 x 640
EIGEN_SHAPE = (480, 640)


def known_depth(true_m: np.ndarray, *, max_depth_m: float, crop: str = 'none') -> np.ndarray:
    """
    Return where a true depth (H, W) may be compared, bool: 0.001 m to `max_depth_m`.

    `crop` 'eigen' leaves the border out, as is usual on NYU Depth v2. Raises ValueError for
    another crop, and for the Eigen crop of an image that is not 480 x 640.
    """
    known = np.isfinite(true_m) & (true_m > MIN_DEPTH_M) & (true_m <= max_depth_m)
    return known & _inside(crop, true_m.shape)


def _inside(crop: str, shape: tuple[int, ...]) -> np.ndarray:
    if crop not in CROPS:
        raise ValueError(f'crop must be one of {CROPS}, not {crop!r}')
    inside = np.full(shape, crop == 'none')
    if crop == 'eigen':
        if shape != EIGEN_SHAPE:
            raise ValueError(f'the Eigen crop is of 480 x 640 pixels, this depth is {shape}')
        inside[EIGEN_CROP] = True
    return inside


def depth_errors(
    predicted_m: np.ndarray, true_m: np.ndarray, *, max_depth_m: float, crop: str = 'none'
) -> dict[str, float]:
    """
    Compare two depth images (H, W) in metres where the truth is known and the prediction finite.

    Returns abs_rel, rmse (m), delta1 and coverage (0 to 1, the part of the known pixels that has
    a prediction); beside these metric figures abs_rel_median_aligned, after the prediction is
    scaled to the median of the truth. Raises ValueError when no pixel can be compared.
    """
    known = known_depth(true_m, max_depth_m=max_depth_m, crop=crop)
    valid = known & np.isfinite(predicted_m)
    if not valid.any():
        raise ValueError('no pixel has both a prediction and a true depth in range')
    predicted, true = predicted_m[valid].astype(np.float64), true_m[valid].astype(np.float64)
    alike = (predicted < 1.25 * true) & (predicted > true / 1.25)
    aligned = predicted * (np.median(true) / np.median(predicted))
    return {
        'abs_rel': float(np.mean(np.abs(predicted - true) / true)),
        'rmse': float(np.sqrt(np.mean((predicted - true) ** 2))),
        'delta1': float(np.mean(alike)),
        'coverage': float(valid.sum() / known.sum()),
        'abs_rel_median_aligned': float(np.mean(np.abs(aligned - true) / true)),
    }


def mean_over_scenes(
    errors: Iterable[tuple[str, dict[str, float]]],
) -> dict[str, dict[str, float]]:
    """
    Average (scene, errors) pairs within each scene and, under the key 'mean', over the scenes.

    Raises ValueError when there is nothing to average.
    """
    by_scene: dict[str, list[dict[str, float]]] = defaultdict(list)
    for scene, values in errors:
        by_scene[scene].append(values)
    if not by_scene:
        raise ValueError('no frame with known depth to judge')
    table = {scene: _mean(values) for scene, values in sorted(by_scene.items())}
    return table | {'mean': _mean(list(table.values()))}


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in METRICS}
