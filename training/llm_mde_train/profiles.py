"""How errors of depth depend on something else, such as the distance or the confidence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from llm_mde_train.metrics import DELTA1_RATIO

DISTANCES_M = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 20.0, 80.0)


@dataclass(frozen=True)
class Profile:
    """Figures of pixels in bins of something else; arrays (B,), NaN where a bin is empty."""

    share: np.ndarray  # part of all compared pixels that is in the bin
    mean: np.ndarray  # of that something else
    abs_rel: np.ndarray
    delta1: np.ndarray


def profile(
    by: np.ndarray, predicted_m: np.ndarray, true_m: np.ndarray, *, limits: Sequence[float]
) -> Profile:
    """
    Sort pixels (N,) into bins by `by` (N,) and return their errors, metres against metres.

    `limits` are B + 1 rising ends of bins; an upper end belongs to its bin, and so does the very
    lowest. Pixels outside count in no bin.
    """
    predicted, true = predicted_m.astype(np.float64), true_m.astype(np.float64)
    bins = np.searchsorted(limits, by, side='left') - 1
    bins[by == limits[0]] = 0
    inside = (bins >= 0) & (bins < len(limits) - 1)
    counts = np.bincount(bins[inside], minlength=len(limits) - 1)

    def mean(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(bins[inside], values[inside], minlength=len(counts))
        return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)

    alike = (predicted < DELTA1_RATIO * true) & (predicted > true / DELTA1_RATIO)
    return Profile(
        share=counts / len(true),
        mean=mean(by),
        abs_rel=mean(np.abs(predicted - true) / true),
        delta1=mean(alike.astype(np.float64)),
    )


def average_profiles(profiles: Iterable[tuple[str, Profile]]) -> Profile:
    """Average (scene, profile) pairs within each scene, then over the scenes, alike for each."""
    by_scene: dict[str, list[Profile]] = defaultdict(list)
    for scene, mine in profiles:
        by_scene[scene].append(mine)
    return _average([_average(mine) for mine in by_scene.values()])


def _average(profiles: list[Profile]) -> Profile:
    shares = np.stack([one.share for one in profiles])
    total = shares.sum(axis=0)

    def mean(name: str) -> np.ndarray:
        values = np.stack([getattr(one, name) for one in profiles])
        sums = np.where(shares > 0, shares * values, 0.0).sum(axis=0)
        return np.divide(sums, total, out=np.full(len(total), np.nan), where=total > 0)

    return Profile(
        share=total / len(profiles),
        mean=mean('mean'),
        abs_rel=mean('abs_rel'),
        delta1=mean('delta1'),
    )
