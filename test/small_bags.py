"""Small recordings of an imaginary camera, written by the tests themselves in every format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builtin_interfaces.msg import Time
import cv2
import numpy as np
from rclpy.serialization import serialize_message
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

WIDTH, HEIGHT, FX = 64, 48, 60.0
IMAGE, INFO, DEPTH = '/cam/image_raw', '/cam/camera_info', '/cam/depth/image_raw'
START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 100_000_000
RECORDING_DELAY_NS = 3_000_000  # between stamp and time in the bag
ROS2_TYPES = get_typestore(Stores.LATEST)
LATCHED = Qos(
    QosHistory.KEEP_LAST,
    1,
    QosReliability.RELIABLE,
    QosDurability.TRANSIENT_LOCAL,
    QosTime(0, 0),
    QosTime(0, 0),
    QosLiveliness.AUTOMATIC,
    QosTime(0, 0),
    False,
)


@dataclass(frozen=True)
class Recorded:
    """A message with its place in a bag."""

    topic: str
    message: Any  # of rclpy, or of rosbags
    time_ns: int
    qos: tuple[Qos, ...] = ()

    @property
    def cdr(self) -> bytes:
        """Return the serialized message."""
        if hasattr(self.message, '__msgtype__'):
            return bytes(ROS2_TYPES.serialize_cdr(self.message, self.type_name))
        return serialize_message(self.message)

    @property
    def type_name(self) -> str:
        """Return the ROS 2 name of the type."""
        if hasattr(self.message, '__msgtype__'):
            return self.message.__msgtype__
        package = type(self.message).__module__.partition('.')[0]
        return f'{package}/msg/{type(self.message).__name__}'


def header_at(stamp_ns: int, frame_id: str = 'cam_optical') -> Header:
    stamp = Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return Header(stamp=stamp, frame_id=frame_id)


def picture(number: int) -> np.ndarray:
    """Return another image for every number: uint8 (48, 64, 3) RGB."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    rgb = np.stack([rows * 4, columns * 3, rows + columns], axis=2).astype(np.uint8)
    rgb[10:30, 5 + number % 40 : 15 + number % 40] = 250
    return rgb


def colour(number: int, *, topic: str = IMAGE, delay_ns: int = RECORDING_DELAY_NS) -> Recorded:
    stamp_ns = START_NS + number * PERIOD_NS
    message = Image(
        header=header_at(stamp_ns),
        width=WIDTH,
        height=HEIGHT,
        encoding='rgb8',
        step=3 * WIDTH,
        data=picture(number).tobytes(),
    )
    return Recorded(topic, message, stamp_ns + delay_ns)


def jpeg(number: int, *, topic: str = f'{IMAGE}/compressed') -> Recorded:
    stamp_ns = START_NS + number * PERIOD_NS
    bgr = cv2.cvtColor(picture(number), cv2.COLOR_RGB2BGR)
    data = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    message = CompressedImage(
        header=header_at(stamp_ns), format='rgb8; jpeg compressed bgr8', data=data
    )
    return Recorded(topic, message, stamp_ns + RECORDING_DELAY_NS)


def info(
    number: int, *, topic: str = INFO, fx: float = FX, delay_ns: int = RECORDING_DELAY_NS
) -> Recorded:
    stamp_ns = START_NS + number * PERIOD_NS
    cx, cy = (WIDTH - 1) / 2, (HEIGHT - 1) / 2
    message = CameraInfo(
        header=header_at(stamp_ns),
        width=WIDTH,
        height=HEIGHT,
        distortion_model='plumb_bob',
        d=[0.0] * 5,
        k=[fx, 0.0, cx, 0.0, fx, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[fx, 0.0, cx, 0.0, 0.0, fx, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )
    return Recorded(topic, message, stamp_ns + delay_ns)


def true_depth(
    number: int, *, frame_id: str = 'cam_optical', late_ns: int = 5_000_000, topic: str = DEPTH
) -> Recorded:
    """Return a depth image of 2 m, some milliseconds after colour, with an unknown corner."""
    stamp_ns = START_NS + number * PERIOD_NS + late_ns
    depth_mm = np.full((HEIGHT, WIDTH), 2000, np.uint16)
    depth_mm[:8, :8] = 0
    message = Image(
        header=header_at(stamp_ns, frame_id),
        width=WIDTH,
        height=HEIGHT,
        encoding='16UC1',
        step=2 * WIDTH,
        data=depth_mm.tobytes(),
    )
    return Recorded(topic, message, stamp_ns + RECORDING_DELAY_NS)


def static_transform() -> Recorded:
    """Return a latched transform; tf2_msgs is not installed everywhere, so rosbags makes it."""
    t = ROS2_TYPES.types
    header = t['std_msgs/msg/Header'](t['builtin_interfaces/msg/Time'](1, 0), 'base')
    transform = t['geometry_msgs/msg/Transform'](
        t['geometry_msgs/msg/Vector3'](0.0, 0.0, 1.2),
        t['geometry_msgs/msg/Quaternion'](0.0, 0.0, 0.0, 1.0),
    )
    stamped = t['geometry_msgs/msg/TransformStamped'](header, 'cam_optical', transform)
    message = t['tf2_msgs/msg/TFMessage']([stamped])
    return Recorded('/tf_static', message, START_NS, (LATCHED,))


def camera(frames: int = 6, *, depth: bool = False, compressed: bool = False) -> list[Recorded]:
    """Return what a camera sends, in the order of time."""
    recorded = []
    for number in range(frames):
        recorded += [info(number), jpeg(number) if compressed else colour(number)]
        recorded += [true_depth(number)] if depth else []
    return recorded


def topics_of(recorded: list[Recorded]) -> dict[str, tuple[str, tuple[Qos, ...]]]:
    """Return type and quality of service of every topic."""
    return {each.topic: (each.type_name, each.qos) for each in recorded}


def write_rosbag2(path: Path, recorded: list[Recorded], *, storage: str = 'mcap') -> Path:
    """Write a rosbag2; storage is mcap or sqlite3."""
    with Writer(path, version=8, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        connections = {
            topic: writer.add_connection(
                topic, type_name, typestore=ROS2_TYPES, offered_qos_profiles=qos
            )
            for topic, (type_name, qos) in topics_of(recorded).items()
        }
        for each in recorded:
            writer.write(connections[each.topic], each.time_ns, each.cdr)
    return path


def write_ros1(path: Path, recorded: list[Recorded]) -> Path:
    """Write a ROS 1 bag."""
    types = get_typestore(Stores.ROS1_NOETIC)
    transforms = 'geometry_msgs/TransformStamped[] transforms'
    types.register(get_types_from_msg(transforms, 'tf2_msgs/msg/TFMessage'))
    with Ros1Writer(path) as writer:
        connections = {
            topic: writer.add_connection(
                topic, type_name, typestore=types, latching=int(bool(qos))
            )
            for topic, (type_name, qos) in topics_of(recorded).items()
        }
        for each in recorded:
            raw = ROS2_TYPES.cdr_to_ros1(each.cdr, each.type_name)
            writer.write(connections[each.topic], each.time_ns, raw)
    return path
