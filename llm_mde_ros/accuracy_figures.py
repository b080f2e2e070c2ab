"""How well depth fits another sensor, over the samples of the last frames."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
import math

import numpy as np

FRAMES = 30
SAMPLES_OF_A_FRAME = 2000  # so that no frame outweighs the others, and the sum stays cheap


@dataclass(frozen=True)
class AccuracyFigures:
    """NaN without samples."""

    abs_rel: float  # mean of |depth - reference| / reference
    delta1: float  # share of samples within a factor of 1.25
    bias: float  # median of log(depth / reference): 0.05 is 5 % too far
    samples: int
    frames: int


NOTHING = AccuracyFigures(math.nan, math.nan, math.nan, samples=0, frames=0)


class AccuracyWindow:
    """Pairs of published depth and reference, frame by frame; the oldest frame is forgotten."""

    def __init__(self) -> None:
        self._frames: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=FRAMES)

    def add(self, depth_m: np.ndarray, reference_m: np.ndarray) -> None:
        """Take the samples of a frame, metres (N,), finite and positive."""
        step = max(1, math.ceil(len(depth_m) / SAMPLES_OF_A_FRAME))
        self._frames.append((depth_m[::step], reference_m[::step]))

    def clear(self) -> None:
        """Forget all frames."""
        self._frames.clear()

    def figures(self) -> AccuracyFigures:
        """Return the figures over all samples; may be called from another thread."""
        frames = tuple(self._frames)
        depth_m, reference_m = np.concatenate(
            [np.empty((2, 0)), *(np.stack(pair) for pair in frames)], axis=1
        )
        if not depth_m.size:
            return NOTHING
        ratio = depth_m / reference_m
        return AccuracyFigures(
            abs_rel=float(np.mean(np.abs(ratio - 1))),
            delta1=float(np.mean(np.maximum(ratio, 1 / ratio) < 1.25)),
            bias=float(np.median(np.log(ratio))),
            samples=depth_m.size,
            frames=len(frames),
        )
