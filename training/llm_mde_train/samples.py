"""
One sample type for every source of colour and depth.

A source is a list of frames: what is known without decoding, and `load` for the rest. Samples are
their own frames, so rendered rooms and test data need no wrapping.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from llm_mde_core import Camera


class Frame(Protocol):
    """A colour and depth pair that may not be in memory yet; picklable, for worker processes."""

    @property
    def scene(self) -> str:
        """Name the room or recording that it belongs to."""

    @property
    def stamp_ns(self) -> int:
        """Return when it was taken; orders the frames of a scene."""

    @property
    def name(self) -> str:
        """Return what finds it again in its scene: the name of its colour image, or its time."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the files that hold it, none when it is in memory."""

    def load(self) -> Sample:
        """Decode it; ValueError for files that are damaged."""


@dataclass(frozen=True)
class Sample:
    """A colour image with its depth on the same pixel grid; ValueError when sizes differ."""

    rgb: np.ndarray  # uint8 (H, W, 3) RGB
    depth_m: np.ndarray  # float32 (H, W), metres along the optical axis; NaN where unknown
    camera: Camera
    scene: str
    max_depth_m: float = 10.0  # depth beyond this is not to be trusted
    stamp_ns: int = 0

    def __post_init__(self) -> None:
        size = (self.camera.height, self.camera.width)
        if self.rgb.shape != (*size, 3) or self.depth_m.shape != size:
            raise ValueError(
                f'colour {self.rgb.shape}, depth {self.depth_m.shape} and camera {size} '
                f'of a sample of {self.scene!r} do not fit each other'
            )

    @property
    def name(self) -> str:
        """Return its time."""
        return f'{self.stamp_ns} ns'

    @property
    def files(self) -> tuple[Path, ...]:
        """Return nothing: it is in memory."""
        return ()

    def load(self) -> Sample:
        """Return itself: it is decoded already."""
        return self


def split_by_time(frames: list[Frame], held_out: float) -> tuple[list[Frame], list[Frame]]:
    """
    Split frames into the beginnings and the ends of their scenes.

    Neighbouring frames of a recording are nearly equal: a split frame by frame would test on
    what was trained on. Of scenes that are too short to be split, such as those of NYU Depth v2,
    whole ones are held out, the same part of them. Some frame is held out when there are two.
    """
    scenes: dict[str, list[Frame]] = {}
    for frame in sorted(frames, key=lambda frame: frame.stamp_ns):
        scenes.setdefault(frame.scene, []).append(frame)
    short = [scene for scene, mine in scenes.items() if not round(len(mine) * held_out)]
    every = round(1 / held_out)
    whole = short[every - 1 :: every]
    first, last = [], []
    for scene, mine in scenes.items():
        cut = 0 if scene in whole else len(mine) - round(len(mine) * held_out)
        first += mine[:cut]
        last += mine[cut:]
    if not last and len(first) > 1:
        last.append(first.pop())
    return first, last
