"""
Errors of depth, metres against metres, on pixels whose truth is known.

They are averaged per image, then over the images of a scene, then over scenes. The figures whose
name ends in `_aligned` are no metric ones: the truth was used to mend the prediction first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
import math

import numpy as np

METRICS = (
    'abs_rel',
    'sq_rel',
    'rmse',
    'rmse_log',
    'silog',
    'log10',
    'delta1',
    'delta2',
    'delta3',
    'coverage',
    'abs_rel_median_aligned',
    'abs_rel_scale_shift_aligned',
)
MIN_DEPTH_M = 1e-3
DELTA1_RATIO = 1.25
CROPS = ('none', 'eigen', 'garg')
EIGEN_CROP = np.s_[45:471, 41:601]  # Eigen et al. 2014; rows and columns of 480 x 640
EIGEN_SHAPE = (480, 640)
GARG_ROWS = (0.40810811, 0.99189189)  # Garg et al. 2016; parts of the height
GARG_COLUMNS = (0.03594771, 0.96405229)  # and of the width


def known_depth(true_m: np.ndarray, *, max_depth_m: float, crop: str = 'none') -> np.ndarray:
    """
    Return where a true depth (H, W) may be compared, bool: 0.001 m to `max_depth_m`.

    `crop` 'eigen' leaves the border out, as is usual on NYU Depth v2, 'garg' sky and bonnet, as
    on KITTI. Raises ValueError for another crop, and for the Eigen crop of an image that is not
    480 x 640.
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
    if crop == 'garg':
        top, bottom = (int(part * shape[0]) for part in GARG_ROWS)
        left, right = (int(part * shape[1]) for part in GARG_COLUMNS)
        inside[top:bottom, left:right] = True
    return inside


def depth_errors(
    predicted_m: np.ndarray, true_m: np.ndarray, *, max_depth_m: float, crop: str = 'none'
) -> dict[str, float]:
    """
    Compare two depth images (H, W) in metres where the truth is known and the prediction finite.

    Returns the METRICS: sq_rel and rmse in metres, silog as KITTI's (100 times the standard
    deviation of the logarithms' difference), delta1 to 3 and coverage from 0 to 1, where coverage
    is the part of the known pixels that has a prediction. Logarithms take a prediction below
    0.001 m as that. Raises ValueError when no pixel can be compared.
    """
    known = known_depth(true_m, max_depth_m=max_depth_m, crop=crop)
    valid = known & np.isfinite(predicted_m)
    if not valid.any():
        raise ValueError('no pixel has both a prediction and a true depth in range')
    predicted, true = predicted_m[valid].astype(np.float64), true_m[valid].astype(np.float64)
    error = predicted - true
    log_error = np.log(np.maximum(predicted, MIN_DEPTH_M)) - np.log(true)
    return {
        'abs_rel': _abs_rel(predicted, true),
        'sq_rel': float(np.mean(error**2 / true)),
        'rmse': float(np.sqrt(np.mean(error**2))),
        'rmse_log': float(np.sqrt(np.mean(log_error**2))),
        'silog': float(100.0 * np.std(log_error)),
        'log10': float(np.mean(np.abs(log_error)) / math.log(10.0)),
        'delta1': _within(predicted, true, DELTA1_RATIO),
        'delta2': _within(predicted, true, DELTA1_RATIO**2),
        'delta3': _within(predicted, true, DELTA1_RATIO**3),
        'coverage': float(valid.sum() / known.sum()),
        'abs_rel_median_aligned': _abs_rel(
            predicted * (np.median(true) / np.median(predicted)), true
        ),
        'abs_rel_scale_shift_aligned': _abs_rel(_scale_shift_aligned(predicted, true), true),
    }


def _abs_rel(predicted: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean(np.abs(predicted - true) / true))


def _within(predicted: np.ndarray, true: np.ndarray, ratio: float) -> float:
    return float(np.mean((predicted < ratio * true) & (predicted > true / ratio)))


def _scale_shift_aligned(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return scale times prediction plus shift, metres, nearest to the truth in squares."""
    centred = predicted - predicted.mean()
    spread = np.mean(centred**2)
    scale = np.mean(centred * true) / spread if spread > 0.0 else 0.0  # flat: no scale to find
    return true.mean() + scale * centred


def mean_over_scenes(
    errors: Iterable[tuple[str, Mapping[str, float]]],
) -> dict[str, dict[str, float]]:
    """
    Average (scene, errors) pairs within each scene and, under the key 'mean', over the scenes.

    A NaN, a figure that an image does not have, is left out of the average. Raises ValueError
    when there is nothing to average.
    """
    by_scene: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for scene, values in errors:
        by_scene[scene].append(values)
    if not by_scene:
        raise ValueError('no frame with known depth to judge')
    table = {scene: _mean(values) for scene, values in sorted(by_scene.items())}
    return table | {'mean': _mean(list(table.values()))}


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: _known_mean([row[name] for row in rows]) for name in rows[0]}


def _known_mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def bootstrap(
    values: Sequence[float],
    *,
    scenes: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """
    Return the 95 % interval of the mean over scenes of figures of frames.

    Scenes are drawn with replacement and, within each, blocks of successive frames: neighbours
    are nearly equal, so single frames would pretend to know more than they do. Frames of a scene
    come in the order of time; without `scenes` all are of one, and the interval says nothing
    about other rooms. Of few scenes or blocks it is a little too narrow. Raises ValueError for no
    values and for values that are not finite.
    """
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(f'an interval needs finite figures of frames, got {list(values)}')
    names = list(scenes) or [''] * len(values)
    by_scene: dict[str, list[float]] = defaultdict(list)
    for name, value in zip(names, values, strict=True):
        by_scene[name].append(value)
    rng = np.random.default_rng(seed)
    means = np.stack([_block_means(mine, resamples, rng) for mine in by_scene.values()])
    drawn = rng.integers(len(means), size=(resamples, len(means)))
    which = rng.integers(resamples, size=drawn.shape)
    low, high = np.percentile(means[drawn, which].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _block_means(values: list[float], resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return means (resamples,) of as many values, drawn in blocks that wrap around the end."""
    count = len(values)
    length = max(1, round(math.sqrt(count)))
    starts = rng.integers(count, size=(resamples, -(-count // length), 1))
    frames = (starts + np.arange(length)) % count
    return np.asarray(values)[frames.reshape(resamples, -1)[:, :count]].mean(axis=1)
