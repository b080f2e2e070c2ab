"""The newest frame, handed from the subscription to the worker thread; and rates by stamps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
import threading

from sensor_msgs.msg import CompressedImage, Image

MAX_PERIOD_NS = 10**18  # next to never; 1e9 / 1e-300 is no number


@dataclass(frozen=True)
class Frame:
    """An image message and when it came (seconds of time.monotonic)."""

    message: Image | CompressedImage
    received_s: float

    @property
    def stamp_ns(self) -> int:
        """Stamp of the image in nanoseconds."""
        stamp = self.message.header.stamp
        return stamp.sec * 1_000_000_000 + stamp.nanosec


class FrameSlot:
    """Holds one frame: a new one replaces an unread one. Iterate to read until it is closed."""

    def __init__(self) -> None:
        self._frame: Frame | None = None
        self._closed = False
        self._changed = threading.Condition()

    def put(self, frame: Frame) -> bool:
        """Return True when an unread frame was replaced."""
        with self._changed:
            replaced = self._frame is not None
            self._frame = frame
            self._changed.notify()
        return replaced

    def close(self) -> None:
        """Forget the unread frame and end the iteration."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def __iter__(self) -> Iterator[Frame]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._frame is not None)
                if self._closed:
                    return
                frame, self._frame = self._frame, None
            yield frame


class RateLimiter:
    """
    Thins out stamped frames to a mean rate.

    Due times follow a schedule, so that jitter of the stamps does not lower the mean rate. A stamp
    before the last one (a bag that starts again) starts a new schedule, and so does the same one
    again (a clock that stands still): it tells nothing about the rate, so the frame passes.
    """

    def __init__(self) -> None:
        self._last_ns = 0
        self._passed_ns: int | None = None  # due time of the last frame that passed

    def allows(self, stamp_ns: int, *, max_rate_hz: float) -> bool:
        """Tell whether the frame may pass; max_rate_hz 0 lets all pass."""
        period_ns = round(min(1e9 / max_rate_hz, MAX_PERIOD_NS)) if max_rate_hz else 0
        moved_on = stamp_ns > self._last_ns
        self._last_ns = stamp_ns
        if self._passed_ns is None or not moved_on:
            self._passed_ns = stamp_ns
            return True
        due_ns = self._passed_ns + period_ns
        if stamp_ns < due_ns:
            return False
        self._passed_ns = due_ns if stamp_ns < due_ns + period_ns else stamp_ns
        return True
