"""The last messages of another sensor, to be found by their stamps."""

from __future__ import annotations

from collections import deque

from std_msgs.msg import Header

from llm_mde_ros.reference_depth import Reference

MAX_MESSAGES = 100
MAX_BYTES = 64_000_000


class ReferenceHistory:
    """
    Keeps messages while the network works on images of their time.

    add() and clear() belong to one thread, nearest() may be called from another.
    """

    def __init__(self) -> None:
        self._messages: deque[Reference] = deque(maxlen=MAX_MESSAGES)

    def add(self, message: Reference) -> None:
        """Keep a message; one from the past (a bag that starts again) makes the others go."""
        last = self._messages[-1] if self._messages else None
        if last is not None and stamp_ns(message.header) < stamp_ns(last.header):
            self.clear()
        self._messages.append(message)
        size = sum(map(_size, self._messages))
        while size > MAX_BYTES and len(self._messages) > 1:
            size -= _size(self._messages.popleft())

    def clear(self) -> None:
        """Forget all messages."""
        self._messages.clear()

    def nearest(self, header: Header) -> tuple[Reference, float] | None:
        """Return the message nearest in time and how many seconds after the header it is."""
        wanted_ns = stamp_ns(header)
        messages = tuple(self._messages)
        if not messages:
            return None
        nearest = min(messages, key=lambda m: abs(stamp_ns(m.header) - wanted_ns))
        return nearest, (stamp_ns(nearest.header) - wanted_ns) / 1e9


def stamp_ns(header: Header) -> int:
    """Return the stamp of a header in nanoseconds."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


def _size(message: Reference) -> int:
    """Return the bytes of what is large in a message."""
    return len(message.data) if hasattr(message, 'data') else 4 * len(message.ranges)
