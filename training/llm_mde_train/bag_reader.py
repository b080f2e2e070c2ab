"""A recording of any kind, rosbag2 (sqlite3, mcap) or ROS 1, read by topic and time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
import os
from pathlib import Path
import struct
import threading
from typing import Any

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection
from rosbags.rosbag1 import ReaderError as Ros1ReaderError
from rosbags.rosbag2 import ReaderError as Ros2ReaderError
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
_BROKEN = (  # what rosbags raises for damaged bags; none of it names the bag
    AnyReaderError,
    Ros1ReaderError,
    Ros2ReaderError,
    SerdeError,
    AssertionError,
    MemoryError,  # of a length that no file has
    OSError,
    OverflowError,
    UnicodeDecodeError,
    struct.error,
)


@dataclass(frozen=True)
class Place:
    """Where a message of a topic is in a bag: the time it was recorded, and its header's stamp."""

    time_ns: int
    stamp_ns: int


class BagReader:
    """
    An open bag; ValueError with a sentence when the path is none that can be read.

    Not for two threads at once: `open_bag` gives each its own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise ValueError(f'the bag {path} does not exist')
        if path.is_dir() and not (path / 'metadata.yaml').exists():
            raise ValueError(f'{path} is no bag: it has no metadata.yaml (try ros2 bag reindex)')
        with self._sentences():
            self._reader = AnyReader([path], default_typestore=get_typestore(Stores.LATEST))
            self._reader.open()

    @property
    def topics(self) -> dict[str, str]:
        """Return the message type of every topic that has messages."""
        return {c.topic: c.msgtype for c in self._reader.connections if c.msgcount}

    def first(self, topic: str) -> Any:
        """Decode the first message of a topic."""
        for connection, _, raw in self._messages(topic):
            return self._decoded(raw, connection)
        raise ValueError(f'the bag {self.path} has no message of {topic}, though it says so')

    def all(self, topic: str) -> Iterator[Any]:
        """Decode the messages of a topic one after the other."""
        for connection, _, raw in self._messages(topic):
            yield self._decoded(raw, connection)

    def places(self, topics: list[str]) -> dict[str, list[Place]]:
        """
        List the messages of topics whose type begins with a Header, in one pass, undecoded.

        A message without a stamp counts as taken when it was recorded.
        """
        places: dict[str, list[Place]] = {topic: [] for topic in topics}
        for connection, time_ns, raw in self._messages(*topics):
            places[connection.topic].append(Place(time_ns, self._stamp_ns(raw) or time_ns))
        return places

    def read(self, topic: str, place: Place) -> Any:
        """Decode the message at a place, found by the bag's index."""
        for connection, time_ns, raw in self._messages(topic, at_ns=place.time_ns):
            if (self._stamp_ns(raw) or time_ns) == place.stamp_ns:
                return self._decoded(raw, connection)
        raise ValueError(f'{self.path} has changed: no {topic} at {place.time_ns} ns any more')

    def _messages(
        self, *topics: str, at_ns: int | None = None
    ) -> Iterator[tuple[Connection, int, bytes]]:
        wanted = [c for c in self._reader.connections if c.topic in topics]
        assert wanted, f'{self.path} has none of {topics}'  # rosbags would yield all topics
        stop_ns = None if at_ns is None else at_ns + 1
        with self._sentences():
            yield from self._reader.messages(wanted, start=at_ns, stop=stop_ns)

    def _stamp_ns(self, raw: bytes) -> int:
        """Read the header's stamp, at one place in CDR and in the bytes of ROS 1."""
        big_endian = self._reader.is2 and not raw[1] & 1
        sec, nanosec = struct.unpack_from('>iI' if big_endian else '<iI', raw, 4)
        return sec * 1_000_000_000 + nanosec

    def _decoded(self, raw: bytes, connection: Connection) -> Any:
        with self._sentences():
            return self._reader.deserialize(raw, connection.msgtype)

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except _BROKEN as error:
            raise ValueError(f'the bag {self.path} cannot be read: {error}') from error


def open_bag(path: Path) -> BagReader:
    """Return a reader of this process and thread, opened once: few bags stay open."""
    return _open_bag(path, os.getpid(), threading.get_ident())


@lru_cache(maxsize=16)
def _open_bag(path: Path, _process: int, _thread: int) -> BagReader:
    return BagReader(path)
