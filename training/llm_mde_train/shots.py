"""
Which frames of a recording teach, which say when to stop, and which judge.

    time ──▶ | shots        | validation | shots      | validation | test       |
               35 %           5 %          30 %         5 %          25 %

Shots from more of the recording teach more of the room, and validation in two places says more
about it. A scene of few frames has shots, validation and test once each.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

import cv2
import numpy as np

from llm_mde_train.metrics import known_depth
from llm_mde_train.samples import Frame, Sample

PARTS = (  # of the frames of a scene, in the order of time
    ('shots', 0.35),
    ('validation', 0.05),
    ('shots', 0.30),
    ('validation', 0.05),
    ('test', 0.25),
)
PARTS_OF_FEW = (('shots', 0.65), ('validation', 0.10), ('test', 0.25))
FEW = 10  # frames; a scene of fewer can spare but one block for validation
LEAST_WITH_GAPS = 100  # frames; a scene of fewer has too few for validation to spare any
GAP = 0.01  # of the frames of a scene: left out beside a border, in validation and test
CANDIDATES_PER_SHOT = 4  # frames looked at for each that is picked, however long the recording
THUMBNAIL = (8, 6)  # columns, rows
LEAST_KNOWN = 0.05  # of the pixels; frames with less teach nothing
TIME_WEIGHT = 0.3  # of the whole recording's length, beside differences of appearance

Item = TypeVar('Item')


@dataclass(frozen=True)
class Blocks:
    """Parts of a recording, apart in time; within each the frames are in order of time."""

    shots: list[Frame]  # to pick shots from
    validation: list[Frame]  # say when to stop
    test: list[Frame]  # give the figures, and nothing else; later than all others


def split_blocks(frames: list[Frame]) -> Blocks:
    """
    Split the time of every scene into PARTS, with gaps before and after what validates.

    Neighbouring frames are nearly equal: split frame by frame, the figures would be those of
    the shots themselves. ValueError for a scene that is too short to be split.
    """
    blocks = Blocks([], [], [])
    for scene in dict.fromkeys(frame.scene for frame in frames):
        mine = sorted((f for f in frames if f.scene == scene), key=lambda frame: frame.stamp_ns)
        if len(mine) < 3:
            raise ValueError(
                f'scene {scene!r} has {len(mine)} frames with depth, at least 3 are needed: some '
                'to learn from, and later ones to stop by and to judge by'
            )
        parts = PARTS_OF_FEW if len(mine) < FEW else PARTS
        gap = max(1, round(GAP * len(mine))) if len(mine) >= LEAST_WITH_GAPS else 0
        start = 0
        for (name, _), end in zip(parts, _ends(parts, len(mine)), strict=True):
            block = mine[start:end]
            if name == 'validation':
                block = block[gap : len(block) - gap] or [block[len(block) // 2]]
            elif name == 'test':
                block = block[gap:]
            getattr(blocks, name).extend(block)
            start = end
    return blocks


def _ends(parts: tuple[tuple[str, float], ...], count: int) -> list[int]:
    """Return where each part of `count` frames ends, at least one frame after the last."""
    ends: list[int] = []
    for number, until in enumerate(accumulate(share for _, share in parts), start=1):
        earliest = ends[-1] + 1 if ends else 1
        latest = count - (len(parts) - number)
        ends.append(min(max(round(until * count), earliest), latest))
    return ends


def spread(items: list[Item], count: int) -> list[Item]:
    """Return at most `count` items, evenly spread over the list."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def pick_shots(frames: list[Frame], count: int) -> list[Sample]:
    """
    Return `count` samples that stand for all frames: each frame has one near to it.

    Near in appearance, in depth and in time. Fewer come back when there are fewer with depth.
    ValueError when there is none. Only the samples that come back are kept in memory.
    """
    if count < 1:
        raise ValueError(f'at least one shot is needed, not {count}')
    candidates, looks = [], []
    for frame in spread(frames, CANDIDATES_PER_SHOT * count):
        sample = frame.load()
        if _known(sample).mean() >= LEAST_KNOWN:
            candidates.append(frame)
            looks.append(_look(sample))
    if not candidates:
        raise ValueError(
            f'none of {len(frames)} frames knows the depth of {LEAST_KNOWN:.0%} of its pixels'
        )
    times = np.linspace(0.0, TIME_WEIGHT, len(candidates))[:, None]
    squares = (np.stack(looks)[:, None] - np.stack(looks)[None]) ** 2
    chosen = _medoids(np.sqrt(squares.mean(axis=2)) + np.abs(times - times.T), count)
    return [candidates[i].load() for i in sorted(chosen)]


def _medoids(distances: np.ndarray, count: int) -> list[int]:
    """Choose items one by one, each time what brings all items nearest to a chosen one."""
    chosen: list[int] = []
    nearest = np.full(len(distances), distances.max() + 1.0)
    for _ in range(min(count, len(distances))):
        chosen.append(int(np.minimum(nearest, distances).sum(axis=1).argmin()))
        nearest = np.minimum(nearest, distances[chosen[-1]])
    return chosen


def _look(sample: Sample) -> np.ndarray:
    """Describe a frame by few numbers: brightness without its mean, logarithm of depth."""
    grey = cv2.cvtColor(sample.rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    small = cv2.resize(grey, THUMBNAIL, interpolation=cv2.INTER_AREA)
    small = (small - small.mean()) / max(float(small.std()), 1.0)
    known = _known(sample)
    log_depth = np.log(np.where(known, sample.depth_m, np.median(sample.depth_m[known])))
    far = cv2.resize(log_depth.astype(np.float32), THUMBNAIL, interpolation=cv2.INTER_AREA)
    return np.concatenate([0.5 * small.ravel(), far.ravel()])


def _known(sample: Sample) -> np.ndarray:
    return known_depth(sample.depth_m, max_depth_m=sample.max_depth_m)
