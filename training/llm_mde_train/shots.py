"""
Which frames of a recording teach, which say when to stop, and which judge.

    time ──▶ | shots are picked here       | validation | test        |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np

from llm_mde_train.metrics import known_depth
from llm_mde_train.samples import Frame, Sample

FIRST_PART, MIDDLE_PART = 0.6, 0.15  # of the frames of a scene; the rest is the test
CANDIDATES_PER_SHOT = 4  # frames looked at for each that is picked, however long the recording
THUMBNAIL = (8, 6)  # columns, rows
LEAST_KNOWN = 0.05  # of the pixels; frames with less teach nothing
TIME_WEIGHT = 0.3  # of the whole recording's length, beside differences of appearance

Item = TypeVar('Item')


@dataclass(frozen=True)
class Blocks:
    """Three parts of a recording, apart in time; within each the frames are in order of time."""

    shots: list[Frame]  # to pick shots from
    validation: list[Frame]  # say when to stop
    test: list[Frame]  # give the figures, and nothing else


def split_blocks(frames: list[Frame]) -> Blocks:
    """
    Split every scene into a first, a middle and a last part of its time.

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
        first = max(1, round(len(mine) * FIRST_PART))
        middle = max(1, round(len(mine) * MIDDLE_PART))
        first = min(first, len(mine) - middle - 1)
        blocks.shots.extend(mine[:first])
        blocks.validation.extend(mine[first : first + middle])
        blocks.test.extend(mine[first + middle :])
    return blocks


def spread(items: list[Item], count: int) -> list[Item]:
    """Return at most `count` items, evenly spread over the list."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def pick_shots(frames: list[Frame], count: int) -> list[Sample]:
    """
    Return `count` samples that stand for all frames: each frame has one near to it.

    Near in appearance, in depth and in time. Fewer come back when there are fewer with depth.
    ValueError when there is none.
    """
    if count < 1:
        raise ValueError(f'at least one shot is needed, not {count}')
    samples = [frame.load() for frame in spread(frames, CANDIDATES_PER_SHOT * count)]
    samples = [sample for sample in samples if _known(sample).mean() >= LEAST_KNOWN]
    if not samples:
        raise ValueError(
            f'none of {len(frames)} frames knows the depth of {LEAST_KNOWN:.0%} of its pixels'
        )
    looks = np.stack([_look(sample) for sample in samples])
    times = np.linspace(0.0, TIME_WEIGHT, len(samples))[:, None]
    distances = np.sqrt(((looks[:, None] - looks[None]) ** 2).mean(axis=2))
    chosen = _medoids(distances + np.abs(times - times.T), count)
    return [samples[i] for i in sorted(chosen)]


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
