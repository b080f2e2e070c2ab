"""Depth of the node against the true depth of a bag, frame by frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from llm_mde_ros.bags import BagMessage, BagReader, to_depth

TOLERANCE_NS = 20_000_000  # colour and depth of a real camera are some milliseconds apart
VALID_RANGE_M = (0.1, 10.0)


def score_frames(
    recorded: BagReader, depth_topic: str, *, source: BagReader, true_topic: str
) -> dict[int, float]:
    """Return AbsRel by stamp (ns) for every recorded depth image that has a true one."""
    pairs = match_stamps(recorded.messages([depth_topic]), source.messages([true_topic]))
    scores = {}
    for depth, true in pairs:
        score = abs_rel(to_depth(depth.decode()), to_depth(true.decode()))
        if np.isfinite(score):
            scores[depth.stamp_ns] = score
    return scores


def true_depth_at(source: BagReader, topic: str, stamp_ns: int) -> np.ndarray | None:
    """Return the true depth (metres, NaN unknown) nearest to a stamp; None when too far."""
    near = [m for m in source.messages([topic]) if abs(m.stamp_ns - stamp_ns) <= TOLERANCE_NS]
    if not near:
        return None
    return to_depth(min(near, key=lambda m: abs(m.stamp_ns - stamp_ns)).decode())


def match_stamps(
    depths: Iterable[BagMessage], trues: Iterable[BagMessage]
) -> Iterator[tuple[BagMessage, BagMessage]]:
    """
    Pair every depth image with the true one of the nearest stamp, if one is near enough.

    Both are in the order of their stamps; only a few true images are held at a time.
    """
    trues, window = iter(trues), deque()
    for depth in depths:
        while not window or window[-1].stamp_ns <= depth.stamp_ns + TOLERANCE_NS:
            following = next(trues, None)
            if following is None:
                break
            window.append(following)
        while window and window[0].stamp_ns < depth.stamp_ns - TOLERANCE_NS:
            window.popleft()
        nearest = min(window, key=lambda m: abs(m.stamp_ns - depth.stamp_ns), default=None)
        if nearest and abs(nearest.stamp_ns - depth.stamp_ns) <= TOLERANCE_NS:
            yield depth, nearest


def abs_rel(depth_m: np.ndarray, true_m: np.ndarray) -> float:
    """Mean of |depth - true| / true over the pixels where both are known; NaN without any."""
    low, high = VALID_RANGE_M
    with np.errstate(invalid='ignore'):
        valid = np.isfinite(depth_m) & (true_m >= low) & (true_m <= high)
    if not valid.any():
        return float('nan')
    return float(np.mean(np.abs(depth_m[valid] - true_m[valid]) / true_m[valid]))
