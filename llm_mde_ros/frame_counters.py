"""What happened to the frames since the node was activated."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
import time

from llm_mde_ros.frame_slot import Frame
from llm_mde_ros.frame_times import FrameTimes

WINDOW_S = 5.0  # of the rates


@dataclass
class FrameCounters:
    """
    Counts, and times of the last frames (seconds of time.monotonic).

    Each figure has one writer (the subscription's or the worker's thread); readers on the other
    thread may see a frame more or less.
    """

    received: int = 0
    rate_limited: int = 0  # by max_rate_hz
    skipped: int = 0  # replaced by a newer frame before their turn
    unwanted: int = 0  # nobody listened to an output that was due
    processed: int = 0  # went through the network
    published: int = 0
    published_before: int = 0  # at the last report
    publish_errors: int = 0  # messages, several of a frame
    publish_errors_before: int = 0  # at the last report
    time_jumps: int = 0
    repeats: int = 0  # of the last stamp, in a row
    dropped: Counter[str] = field(default_factory=Counter)  # by stage
    dropped_before: int = 0  # at the last report
    dropped_in_a_row: int = 0  # since the last one that was published
    last_drop: str = ''
    blind_in_a_row: int = 0  # frames without any depth
    published_of: Counter[str] = field(default_factory=Counter)  # by topic
    received_at_s: deque[float] = field(default_factory=lambda: deque(maxlen=300))
    skipped_at_s: deque[float] = field(default_factory=lambda: deque(maxlen=300))
    published_at_s: deque[float] = field(default_factory=lambda: deque(maxlen=300))
    times: deque[FrameTimes] = field(default_factory=lambda: deque(maxlen=300))
    last_stamp_ns: int = 0
    busy_since_s: float | None = None  # the network, with a frame; None: it is not

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Tell since when the network works on a frame, while it does."""
        self.busy_since_s = time.monotonic()
        try:
            yield
        finally:
            self.busy_since_s = None

    def count_received(self, frame: Frame) -> bool:
        """Return True when the stamp is before the last one (a bag that starts again)."""
        jumped_back = frame.stamp_ns < self.last_stamp_ns
        self.repeats = self.repeats + 1 if frame.stamp_ns == self.last_stamp_ns else 0
        self.last_stamp_ns = frame.stamp_ns
        self.time_jumps += jumped_back
        self.received += 1
        self.received_at_s.append(frame.received_s)
        return jumped_back

    def count_skipped(self) -> None:
        """Count a frame that a newer one replaced before its turn."""
        self.skipped += 1
        self.skipped_at_s.append(time.monotonic())

    def count_published(self, times: FrameTimes) -> None:
        """Count a frame whose outputs went out."""
        self.published += 1
        self.dropped_in_a_row = 0
        self.published_at_s.append(time.monotonic())
        self.times.append(times)

    def count_seen(self, anything: bool) -> None:
        """Count a frame by whether there is any depth in it."""
        self.blind_in_a_row = 0 if anything else self.blind_in_a_row + 1

    def count_dropped(self, stage: str, sentence: str) -> None:
        """Count a frame that could not be used."""
        self.dropped[stage] += 1
        self.dropped_in_a_row += 1
        self.last_drop = sentence

    @property
    def dropped_total(self) -> int:
        """Frames dropped in any stage."""
        return sum(self.dropped.copy().values())

    def mark_reported(self) -> None:
        """Remember what the last report said."""
        self.dropped_before = self.dropped_total
        self.published_before = self.published
        self.publish_errors_before = self.publish_errors


def rate_hz(times_s: deque[float]) -> float:
    """Mean rate of the events within the last seconds; 0 for fewer than two."""
    times = recent(times_s)
    return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0


def recent(times_s: deque[float]) -> list[float]:
    """Return the times of the events within the last seconds."""
    since = time.monotonic() - WINDOW_S
    return [t for t in tuple(times_s) if t >= since]
