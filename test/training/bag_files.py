"""Small bags of every kind, message by message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from llm_mde_core import Camera

KINDS = ('sqlite3', 'mcap', 'ros1')
COLOR, DEPTH = '/camera/color/image_raw', '/camera/depth/image_raw'
FRAME = 'camera_optical_frame'
CAMERA = Camera(width=16, height=12, fx=15.0, fy=14.0, cx=7.5, cy=5.5)
BASE_NS = 1_700_000_000_000_000_000
STEP_NS = 100_000_000


class BagFile:
    """A bag that is being written; times count from BASE_NS, log times are `lag_ns` late."""

    def __init__(
        self, path: Path, kind: str = 'mcap', *, lag_ns: int = 0, compressed: bool = False
    ) -> None:
        self.ros1 = kind == 'ros1'
        self.lag_ns = lag_ns
        self.types = get_typestore(Stores.ROS1_NOETIC if self.ros1 else Stores.ROS2_HUMBLE)
        if self.ros1:  # it comes with another package there
            text = 'geometry_msgs/TransformStamped[] transforms'
            self.types.register(get_types_from_msg(text, 'tf2_msgs/msg/TFMessage'))
        self.writer: Any
        if self.ros1:
            self.writer = Ros1Writer(path)
        else:
            plugin = StoragePlugin.MCAP if kind == 'mcap' else StoragePlugin.SQLITE3
            self.writer = Writer(path, version=8, storage_plugin=plugin)
            if compressed:
                self.writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
        self.topics: dict[str, Any] = {}

    def __enter__(self) -> BagFile:
        self.writer.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    def image(
        self,
        topic: str,
        pixels: np.ndarray,
        encoding: str,
        *,
        ns: int = 0,
        frame: str = FRAME,
        pad: int = 0,
        stamped: bool = True,
    ) -> None:
        """Write an Image, with `pad` bytes at the end of each row."""
        rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
        message = self._make(
            'sensor_msgs/msg/Image',
            header=self._header(ns if stamped else -BASE_NS, frame),
            height=pixels.shape[0],
            width=pixels.shape[1],
            encoding=encoding,
            is_bigendian=int(pixels.dtype.byteorder == '>'),
            step=rows.shape[1] + pad,
            data=np.pad(rows, ((0, 0), (0, pad))).reshape(-1),
        )
        self._write(topic, message, ns)

    def compressed(
        self, topic: str, data: bytes, format_name: str, *, ns: int = 0, frame: str = FRAME
    ) -> None:
        """Write a CompressedImage."""
        message = self._make(
            'sensor_msgs/msg/CompressedImage',
            header=self._header(ns, frame),
            format=format_name,
            data=np.frombuffer(data, np.uint8),
        )
        self._write(topic, message, ns)

    def info(
        self,
        topic: str,
        camera: Camera,
        *,
        ns: int = 0,
        frame: str = FRAME,
        p: np.ndarray | None = None,
        **changes: Any,
    ) -> None:
        """Write a CameraInfo."""
        matrix = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
        calibration = {
            'd': np.array(camera.distortion, np.float64),
            'k': matrix.ravel(),
            'r': np.eye(3).ravel(),
            'p': np.column_stack([matrix, np.zeros(3)]).ravel() if p is None else p,
        }
        if self.ros1:
            calibration = {name.upper(): value for name, value in calibration.items()}
        fields = {
            'header': self._header(ns, frame),
            'height': camera.height,
            'width': camera.width,
            'distortion_model': camera.distortion_model or 'plumb_bob',
            'binning_x': 0,
            'binning_y': 0,
            'roi': self.region(),
        }
        self._write(
            topic, self._make('sensor_msgs/msg/CameraInfo', **fields | calibration | changes), ns
        )

    def region(self, *, left: int = 0, top: int = 0, width: int = 0, height: int = 0) -> Any:
        """Return a RegionOfInterest."""
        return self._make(
            'sensor_msgs/msg/RegionOfInterest',
            x_offset=left,
            y_offset=top,
            height=height,
            width=width,
            do_rectify=False,
        )

    def static_transform(
        self,
        parent: str,
        child: str,
        *,
        move: tuple[float, float, float],
        turn: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0),
    ) -> None:
        """Write a transform of child in parent: metres and the quaternion x y z w."""
        make = self._make
        transform = make(
            'geometry_msgs/msg/Transform',
            translation=make('geometry_msgs/msg/Vector3', **dict(zip('xyz', move, strict=True))),
            rotation=make('geometry_msgs/msg/Quaternion', **dict(zip('xyzw', turn, strict=True))),
        )
        stamped = make(
            'geometry_msgs/msg/TransformStamped',
            header=self._header(0, parent),
            child_frame_id=child,
            transform=transform,
        )
        self._write('/tf_static', make('tf2_msgs/msg/TFMessage', transforms=[stamped]), 0)

    def frames(
        self,
        count: int,
        *,
        depth_lag_ns: int = 0,
        camera: Camera = CAMERA,
        depth_frame: str = FRAME,
        depth_camera: Camera | None = None,
    ) -> None:
        """Write colour, depth in millimetres and both CameraInfos, `count` times."""
        depth_camera = depth_camera or camera
        for number in range(count):
            ns = number * STEP_NS
            self.info(COLOR.replace('image_raw', 'camera_info'), camera, ns=ns)
            self.image(COLOR, color_image(number, camera), 'rgb8', ns=ns)
            self.info(
                DEPTH.replace('image_raw', 'camera_info'), depth_camera, ns=ns, frame=depth_frame
            )
            depth_mm = depth_image(number, depth_camera)
            self.image(DEPTH, depth_mm, '16UC1', ns=ns + depth_lag_ns, frame=depth_frame)

    def _make(self, name: str, **fields: Any) -> Any:
        return self.types.types[name](**fields)

    def _header(self, ns: int, frame: str) -> Any:
        sec, nanosec = divmod(BASE_NS + ns, 10**9)
        time = self._make('builtin_interfaces/msg/Time', sec=sec, nanosec=nanosec)
        more = {'seq': 0} if self.ros1 else {}
        return self._make('std_msgs/msg/Header', stamp=time, frame_id=frame, **more)

    def _write(self, topic: str, message: Any, ns: int) -> None:
        kind = message.__msgtype__
        if topic not in self.topics:
            self.topics[topic] = self.writer.add_connection(topic, kind, typestore=self.types)
        serialize = self.types.serialize_ros1 if self.ros1 else self.types.serialize_cdr
        self.writer.write(self.topics[topic], BASE_NS + ns + self.lag_ns, serialize(message, kind))


def color_image(number: int, camera: Camera = CAMERA) -> np.ndarray:
    """Return a red, uint8 RGB, that tells the frames apart."""
    rgb = np.zeros((camera.height, camera.width, 3), np.uint8)
    rgb[..., 0] = 10 + number
    return rgb


def depth_image(number: int, camera: Camera = CAMERA) -> np.ndarray:
    """Return 1 m and as many millimetres as the number says; the first column is unknown."""
    depth_mm = np.full((camera.height, camera.width), 1000 + number, np.uint16)
    depth_mm[:, 0] = 0
    return depth_mm
