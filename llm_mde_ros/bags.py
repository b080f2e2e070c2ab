"""
Recordings: rosbag2 (sqlite3, mcap) and ROS 1 bags in, rosbag2 in mcap out.

Everything passes through as the CDR bytes of ROS 2 messages. They are decoded with the real
message classes, so that conversions.py stays the only place where images meet arrays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
import difflib
from pathlib import Path
import struct
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
from rclpy.serialization import deserialize_message
from rosbags.convert.converter import LATCH, is_same_wireformat
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection, ConnectionExtRosbag1, Qos
from rosbags.rosbag1 import ReaderError as Ros1ReaderError
from rosbags.rosbag2 import ReaderError, StoragePlugin, Writer
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from llm_mde_ros.conversions import (
    compressed_depth_to_depth,
    compressed_to_rgb,
    image_to_depth,
    image_to_rgb,
)
from llm_mde_ros.share import share_file

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
MESSAGE_CLASSES = {
    IMAGE: Image,
    COMPRESSED_IMAGE: CompressedImage,
    CAMERA_INFO: CameraInfo,
    'sensor_msgs/msg/PointCloud2': PointCloud2,
    'diagnostic_msgs/msg/DiagnosticArray': DiagnosticArray,
}
DEPTH_ENCODINGS = ('16UC1', '32FC1')
BROKEN = (  # what rosbags raises for damaged bags; little of it names the bag
    AnyReaderError,
    AssertionError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,  # of a length that no file has
    OSError,
    OverflowError,
    ReaderError,
    Ros1ReaderError,
    SerdeError,
    UnicodeDecodeError,
    struct.error,
)
RENAMED_SINCE_ROS1 = {'tf/msg/tfMessage': 'tf2_msgs/msg/TFMessage'}


@dataclass(frozen=True)
class BagMessage:
    """One message of a bag: its topic, type, time in the bag and CDR bytes."""

    topic: str
    type_name: str
    time_ns: int
    cdr: bytes

    def decode(self) -> Any:
        """Return the ROS message, of one of MESSAGE_CLASSES."""
        return deserialize_message(self.cdr, MESSAGE_CLASSES[self.type_name])

    @property
    def stamp_ns(self) -> int:
        """Return the stamp of the header, with which every image message begins."""
        return header_stamp_ns(self.cdr)


def header_stamp_ns(cdr: bytes) -> int:
    """Read the stamp out of the CDR bytes of a message whose first field is a Header."""
    sec, nanosec = struct.unpack_from('<iI' if cdr[1] & 1 else '>iI', cdr, 4)
    return sec * 1_000_000_000 + nanosec


def to_rgb(image: Image | CompressedImage) -> np.ndarray:
    """Decode a raw or compressed colour image: uint8 (H, W, 3) RGB."""
    return image_to_rgb(image) if isinstance(image, Image) else compressed_to_rgb(image)


def to_depth(image: Image | CompressedImage) -> np.ndarray:
    """Decode a raw or compressed depth image: metres, float32 (H, W), NaN where unknown."""
    return image_to_depth(image) if isinstance(image, Image) else compressed_depth_to_depth(image)


class BagReader:
    """
    One recording of any kind, read as ROS 2 messages in the order of their times.

    Raises ValueError with a sentence when the path is no readable bag.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise ValueError(f'{self.path} does not exist.')
        if self.path.is_dir() and not (self.path / 'metadata.yaml').exists():
            raise ValueError(f'{self.path} is no bag: it has no metadata.yaml.')
        self._types = get_typestore(Stores.LATEST)
        try:
            self._reader = AnyReader([self.path], default_typestore=self._types)
            self._reader.open()
        except BROKEN as error:
            raise ValueError(f'{self.path} is no bag that can be read: {error}') from error
        self._connections = list(self._reader.connections)
        if not self._reader.is2:
            self._types = _ros2_types(self._reader.typestore)

    def __enter__(self) -> BagReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    @property
    def topics(self) -> dict[str, str]:
        """Return the type of every topic."""
        return {c.topic: _ros2_name(c.msgtype) for c in self._connections}

    def count(self, topic: str) -> int:
        """Return how many messages the topic has."""
        return sum(c.msgcount for c in self._connections if c.topic == topic)

    def messages(self, topics: Collection[str] | None = None) -> Iterator[BagMessage]:
        """Yield the messages of these topics (None: of all) in the order of the bag's times."""
        wanted = [c for c in self._connections if topics is None or c.topic in topics]
        if not wanted:
            return
        try:
            for connection, time_ns, raw in self._reader.messages(wanted):
                type_name = _ros2_name(connection.msgtype)
                cdr = raw if self._reader.is2 else self._types.ros1_to_cdr(raw, type_name)
                yield BagMessage(connection.topic, type_name, time_ns, bytes(cdr))
        except BROKEN as error:
            raise ValueError(f'{self.path} cannot be read to its end: {error}') from error

    def first(self, topic: str) -> BagMessage | None:
        """Return the first message of a topic, None when it has none."""
        return next(self.messages([topic]), None)

    def is_copyable(self, topic: str) -> bool:
        """Tell whether the ROS 2 definition of the topic's type is known."""
        names = {c.msgtype for c in self._connections if c.topic == topic}
        if self._reader.is2:
            return all(name in self._reader.typestore.fielddefs for name in names)
        source = self._reader.typestore
        return all(is_same_wireformat(source, self._types, n, _ros2_name(n)) for n in names)

    def declare_in(self, writer: Writer, topic: str) -> Connection:
        """Add a topic of this bag to a writer, with its definition and quality of service."""
        connection = next(c for c in self._connections if c.topic == topic)
        types = self._reader.typestore if self._reader.is2 else self._types
        return writer.add_connection(
            topic,
            _ros2_name(connection.msgtype),
            typestore=types,
            offered_qos_profiles=_offered_qos(connection),
        )


def _ros2_name(type_name: str) -> str:
    return RENAMED_SINCE_ROS1.get(type_name, type_name)


def _offered_qos(connection: Connection) -> list[Qos]:
    if isinstance(connection.ext, ConnectionExtRosbag1):
        return LATCH if connection.ext.latching else []
    return connection.ext.offered_qos_profiles


def _ros2_types(ros1_types: Typestore) -> Typestore:
    """Return the ROS 2 definitions, with the ones that only the ROS 1 bag knows added."""
    types = get_typestore(Stores.LATEST)
    types.register(
        {
            _ros2_name(name): definition
            for name, definition in ros1_types.fielddefs.items()
            if _ros2_name(name) not in types.fielddefs
        }
    )
    return types


def create_bag(path: Path) -> Writer:
    """Return a writer (a context manager) of a new rosbag2 in mcap; the path must not exist."""
    # Version 8 of the metadata is what Humble to Kilted read.
    return Writer(path, version=8, storage_plugin=StoragePlugin.MCAP)


def declare(writer: Writer, topic: str, type_name: str) -> Connection:
    """Add a topic of an installed message type to a writer."""
    types = get_typestore(Stores.LATEST)
    if type_name not in types.fielddefs:
        package, _, name = type_name.split('/')
        definition = share_file(package, f'msg/{name}.msg')
        types.register(get_types_from_msg(definition.read_text(), type_name))
    return writer.add_connection(topic, type_name, typestore=types)


@dataclass(frozen=True)
class CameraTopics:
    """The topics of one camera: colour, its CameraInfo and true depth on its pixel grid."""

    image: str
    image_type: str
    camera_info: str | None
    depth: str | None

    @property
    def compressed(self) -> bool:
        """Tell whether the colour images are sensor_msgs/CompressedImage."""
        return self.image_type == COMPRESSED_IMAGE


def find_camera_topics(
    bag: BagReader,
    *,
    image: str | None = None,
    camera_info: str | None = None,
    depth: str | None = None,
) -> CameraTopics:
    """
    Find the topics that were not named by their types.

    Raises ValueError, listing the candidates, when there is none or more than one.
    """
    for name, allowed in (
        (image, (IMAGE, COMPRESSED_IMAGE)),
        (camera_info, (CAMERA_INFO,)),
        (depth, (IMAGE, COMPRESSED_IMAGE)),
    ):
        if name is not None:
            _check_named(bag, name, allowed)
    firsts = _first_images(bag)
    image = image or _only_colour_topic(bag, firsts)
    return CameraTopics(
        image=image,
        image_type=bag.topics[image],
        camera_info=camera_info or _info_topic_of(bag, image),
        depth=depth or _depth_topic_of(firsts, image),
    )


def _check_named(bag: BagReader, name: str, allowed: tuple[str, ...]) -> None:
    if name not in bag.topics:
        nearest = difflib.get_close_matches(name, bag.topics, n=1)
        hint = f'; did you mean {nearest[0]}?' if nearest else ''
        raise ValueError(f'{bag.path} has no topic {name}{hint}\n{_listing(bag.topics)}')
    if bag.topics[name] not in allowed:
        raise ValueError(f'{name} is {bag.topics[name]}, not {" or ".join(allowed)}')


def _first_images(bag: BagReader) -> dict[str, Image | CompressedImage]:
    """Return the first message of every image topic; a raw topic stands for its transports."""
    topics = [t for t, kind in bag.topics.items() if kind in (IMAGE, COMPRESSED_IMAGE)]
    transported = {t for t in topics if t.rpartition('/')[0] in topics}
    firsts = ((t, bag.first(t)) for t in topics if t not in transported)
    return {topic: first.decode() for topic, first in firsts if first is not None}


def _is_depth(image: Image | CompressedImage) -> bool:
    if isinstance(image, Image):
        return image.encoding in DEPTH_ENCODINGS
    return 'compresseddepth' in image.format.lower()


def _only_colour_topic(bag: BagReader, firsts: dict[str, Image | CompressedImage]) -> str:
    candidates = sorted(topic for topic, first in firsts.items() if not _is_depth(first))
    if not candidates:
        raise ValueError(f'{bag.path} has no colour images:\n{_listing(bag.topics)}')
    if len(candidates) > 1:
        named = _listing({c: bag.topics[c] for c in candidates})
        raise ValueError(f'{bag.path} has several colour topics, name one of them:\n{named}')
    return candidates[0]


def _info_topic_of(bag: BagReader, image: str) -> str | None:
    """Return camera_info beside the image topic, or the only CameraInfo of the bag."""
    infos = sorted(t for t, kind in bag.topics.items() if kind == CAMERA_INFO)
    parents = (image.rpartition('/')[0], image.rpartition('/')[0].rpartition('/')[0])
    for parent in parents:  # the second one for .../image_raw/compressed
        if f'{parent}/camera_info' in infos:
            return f'{parent}/camera_info'
    if len(infos) > 1:
        named = _listing(dict.fromkeys(infos, CAMERA_INFO))
        raise ValueError(f'No camera_info lies beside {image}, name one of these:\n{named}')
    return infos[0] if infos else None


def _depth_topic_of(firsts: dict[str, Image | CompressedImage], image: str) -> str | None:
    """Return the depth topic on the colour image's pixel grid: same frame, same size."""
    colour = firsts.get(image) or firsts.get(image.rpartition('/')[0])  # raw, or its twin's
    if colour is None:
        return None
    size = _size(colour)
    for topic, first in sorted(firsts.items()):
        same_frame = first.header.frame_id == colour.header.frame_id
        if _is_depth(first) and same_frame and size and _size(first) == size:
            return topic
    return None


def _size(image: Image | CompressedImage) -> tuple[int, ...] | None:
    """Return height and width; None for a broken image, others of its topic may be sound."""
    if isinstance(image, Image):
        return image.height, image.width
    try:
        return (to_depth(image) if _is_depth(image) else to_rgb(image)).shape[:2]
    except ValueError:
        return None


def _listing(topics: dict[str, str]) -> str:
    return '\n'.join(f'  {name}  ({kind})' for name, kind in sorted(topics.items()))
