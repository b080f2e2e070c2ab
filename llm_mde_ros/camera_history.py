"""Which CameraInfo of a bag belongs to an image."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

from sensor_msgs.msg import CameraInfo

from llm_mde_ros.bags import BagReader
from llm_mde_ros.camera_source import calibration_of

DISORDER_NS = 1_000_000_000  # messages that overtook each other; more is a clock that went back


@dataclass
class _Run:
    """CameraInfo whose stamps do not go back, in their order."""

    stamps_ns: list[int] = field(default_factory=list)
    times_ns: list[int] = field(default_factory=list)  # in the bag
    infos: list[CameraInfo] = field(default_factory=list)

    def add(self, stamp_ns: int, time_ns: int, info: CameraInfo) -> None:
        at = bisect.bisect_right(self.stamps_ns, stamp_ns)
        self.stamps_ns.insert(at, stamp_ns)
        self.times_ns.insert(at, time_ns)
        self.infos.insert(at, info)

    def until(self, stamp_ns: int) -> int:
        """Return the index of the newest that is not newer, 0 when all are."""
        return max(0, bisect.bisect_right(self.stamps_ns, stamp_ns) - 1)

    def delay_ns(self, stamp_ns: int) -> int:
        """Return how long after such a stamp messages were recorded."""
        index = self.until(stamp_ns)
        return self.times_ns[index] - self.stamps_ns[index]


class CameraHistory:
    """
    The CameraInfo that was valid for an image: the newest one that is not newer than it.

    A recorder may have written it after its image, so all of them are read first. Stamps that go
    back (a bag of a bag that was played in a loop) begin another run, and that of the image is
    the one that was recorded as long after its stamps.
    """

    def __init__(self, bag: BagReader, topic: str | None) -> None:
        self._runs: list[_Run] = []
        info, calibration = None, None
        for message in bag.messages([topic]) if topic else ():
            decoded = message.decode()
            if info is None or calibration_of(decoded) != calibration:  # only changes are kept
                info, calibration = decoded, calibration_of(decoded)
            if not self._runs or message.stamp_ns < self._runs[-1].stamps_ns[-1] - DISORDER_NS:
                self._runs.append(_Run())
            self._runs[-1].add(message.stamp_ns, message.time_ns, info)

    def at(self, *, stamp_ns: int, time_ns: int) -> CameraInfo | None:
        """Return that of an image, by its stamp and time in the bag; None when there is none."""
        if not self._runs:
            return None
        delay_ns = time_ns - stamp_ns
        run = min(self._runs, key=lambda run: abs(run.delay_ns(stamp_ns) - delay_ns))
        return run.infos[run.until(stamp_ns)]
