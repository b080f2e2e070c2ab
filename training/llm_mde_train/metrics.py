"""
Errors of depth, metres against metres, on pixels whose truth is known.

They are averaged per image, then over the images of a scene, then over scenes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

METRICS = ('abs_rel', 'rmse', 'delta1')
MIN_DEPTH_M = 1e-3


def known_depth(true_m: np.ndarray, *, max_depth_m: float) -> np.ndarray:
    """Return where a true depth (H, W) may be compared, bool: 0.001 m to `max_depth_m`."""
    return np.isfinite(true_m) & (true_m > MIN_DEPTH_M) & (true_m <= max_depth_m)


def depth_errors(
    predicted_m: np.ndarray, true_m: np.ndarray, *, max_depth_m: float
) -> dict[str, float]:
    """
    Compare two depth images (H, W) in metres where the truth is known and the prediction finite.

    Returns abs_rel, rmse (m) and delta1. Raises ValueError when no pixel can be compared.
    """
    valid = known_depth(true_m, max_depth_m=max_depth_m) & np.isfinite(predicted_m)
    if not valid.any():
        raise ValueError('no pixel has both a prediction and a true depth in range')
    predicted, true = predicted_m[valid].astype(np.float64), true_m[valid].astype(np.float64)
    alike = (predicted < 1.25 * true) & (predicted > true / 1.25)
    return {
        'abs_rel': float(np.mean(np.abs(predicted - true) / true)),
        'rmse': float(np.sqrt(np.mean((predicted - true) ** 2))),
        'delta1': float(np.mean(alike)),
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
