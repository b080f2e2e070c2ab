"""Colour and depth that were taken at about the same time."""

from __future__ import annotations

import numpy as np


def pair_stamps(
    color_ns: np.ndarray, depth_ns: np.ndarray, *, tolerance_ns: int
) -> list[tuple[int, int]]:
    """
    Return the indices of colour and depth stamps, int64 in any order, that belong together.

    The closest pairs first, each stamp once, none further apart than the tolerance; the result is
    ordered by the colour stamps.
    """
    if not len(color_ns) or not len(depth_ns):
        return []
    order = np.argsort(depth_ns, kind='stable')
    after = np.searchsorted(depth_ns[order], color_ns)
    candidates = []
    for neighbour in (after - 1, after):
        depth = order[neighbour.clip(0, len(order) - 1)]
        candidates.append((np.abs(depth_ns[depth] - color_ns), np.arange(len(color_ns)), depth))
    gaps, colors, depths = (np.concatenate(column) for column in zip(*candidates, strict=True))
    pairs, used = {}, set()
    for index in np.lexsort((depths, colors, gaps)):
        color, depth = int(colors[index]), int(depths[index])
        if gaps[index] <= tolerance_ns and color not in pairs and depth not in used:
            pairs[color] = depth
            used.add(depth)
    return sorted(pairs.items(), key=lambda pair: color_ns[pair[0]])


def smallest_gap_ns(color_ns: np.ndarray, depth_ns: np.ndarray) -> int:
    """Return how far apart the closest two are; both need at least one stamp."""
    ordered = np.sort(depth_ns)
    after = np.searchsorted(ordered, color_ns)
    gaps = [np.abs(ordered[n.clip(0, len(ordered) - 1)] - color_ns) for n in (after - 1, after)]
    return int(np.min(gaps))
