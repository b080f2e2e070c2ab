"""How long the stages of a frame took, and what is usual of the last frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import math
import time

import numpy as np

STAGES = (
    'wait',  # for the frame before it
    'decode',
    'camera',
    'preprocess',
    'network',
    'postprocess',
    'outputs',  # depth to messages
    'publish',
)
PERCENTILES = (50, 95, 99)
MAX_AGE_S = 3600.0  # beyond it the stamps are of another clock, as those of a bag


class FrameTimes:
    """Seconds of each stage of a frame since it was received; one ends where the next begins."""

    def __init__(self, received_s: float) -> None:
        self.stage_s: dict[str, float] = {}
        self.age_s = math.nan  # from the stamp of the image to the end; NaN: unknown
        self._received_s = self._ended_s = received_s

    def end(self, stage: str) -> None:
        """End a stage now."""
        now_s = time.monotonic()
        self.stage_s[stage] = now_s - self._ended_s
        self._ended_s = now_s

    def end_all(self, stage_s: Mapping[str, float]) -> None:
        """End the stages that tell their own times."""
        self.stage_s.update(stage_s)
        self._ended_s = time.monotonic()

    def set_age(self, *, stamp_ns: int, now_ns: int) -> None:
        """Tell the stamp, and the time of its clock."""
        age_s = 1e-9 * (now_ns - stamp_ns)
        self.age_s = age_s if 0 <= age_s < MAX_AGE_S else math.nan

    @property
    def latency_s(self) -> float:
        """Seconds from receiving the image to the end of the last stage."""
        return self._ended_s - self._received_s


def usual_ms(frames: Iterable[FrameTimes]) -> dict[str, np.ndarray]:
    """Return the PERCENTILES, float (3,) milliseconds, of latency, age and every stage."""
    frames = tuple(frames)
    values_s = {
        'latency': [frame.latency_s for frame in frames],
        'age': [frame.age_s for frame in frames if not math.isnan(frame.age_s)],
        **{stage: [frame.stage_s[stage] for frame in frames] for stage in STAGES},
    }
    return {name: 1e3 * np.percentile(s or [np.nan], PERCENTILES) for name, s in values_s.items()}
