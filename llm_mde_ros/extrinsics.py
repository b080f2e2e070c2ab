"""Where another sensor stands, seen from the camera: from a parameter, or from /tf."""

from __future__ import annotations

import math

from builtin_interfaces.msg import Time as Stamp
from geometry_msgs.msg import Transform
import numpy as np
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.time import Time

from llm_mde_ros.matched_subscription import refusal

try:
    from tf2_ros import Buffer, TransformException, TransformListener
except ImportError:  # the wheels have no tf2; then the parameter says it
    Buffer = None

# REP 103: a body has x forward, y left, z up; an optical frame z forward, x right, y down.
OPTICAL_TO_BODY = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])


def parse_extrinsics(text: str) -> tuple[float, ...]:
    """Read 'x y z roll pitch yaw', metres and radians; ValueError with a sentence otherwise."""
    try:
        values = tuple(map(float, text.replace(',', ' ').split()))
    except ValueError:
        values = ()
    if len(values) != 6 or not all(map(math.isfinite, values)):
        raise ValueError(
            f'extrinsics are {text!r}, expected six numbers: x y z in metres, roll pitch yaw in '
            "radians, as '0.1 0 -0.05 0 0 0'"
        )
    return values


def sensor_to_optical(pose: tuple[float, ...], *, sensor_is_optical: bool) -> np.ndarray:
    """
    Return the matrix (4, 4) that moves points of a sensor into the camera's optical frame.

    pose: x y z roll pitch yaw of the sensor, seen from the camera; both as bodies, x forward, y
    left, z up. sensor_is_optical: its points are in an optical frame, as those of a depth image.
    """
    x, y, z, roll, pitch, yaw = pose
    turn = _turn(2, yaw) @ _turn(1, pitch) @ _turn(0, roll)  # about fixed axes, as ROS does
    body = np.eye(4)
    body[:3, :3], body[:3, 3] = turn, (x, y, z)
    source = OPTICAL_TO_BODY if sensor_is_optical else np.eye(4)
    return OPTICAL_TO_BODY.T @ body @ source


def transform_to_matrix(transform: Transform) -> np.ndarray:
    """
    Return the matrix (4, 4) of a transform, which moves points of the child to the parent.

    ValueError for a rotation that is none, and a translation that is not finite.
    """
    move, turn = transform.translation, transform.rotation
    if not all(map(math.isfinite, (move.x, move.y, move.z))):
        raise ValueError(f'a transform moves by {move.x:g}, {move.y:g}, {move.z:g} m')
    length = math.hypot(turn.x, turn.y, turn.z, turn.w)
    if not abs(length - 1) < 0.01:
        raise ValueError(f'a transform has a quaternion of length {length:g}, expected 1')
    x, y, z, w = turn.x / length, turn.y / length, turn.z / length, turn.w / length
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = move.x, move.y, move.z
    return matrix


def move_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return points (N, 3) moved by a matrix (4, 4)."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


class FrameTransforms:
    """Looks frames up in /tf and /tf_static, where tf2_ros is installed."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._wanted = False
        self._refusal = ''  # why there is no listener
        self._buffer = self._listener = None

    def matrix(self, *, target: str, source: str, stamp: Stamp) -> np.ndarray:
        """Return the matrix (4, 4) from source to target; ValueError when it is not known."""
        if target.lstrip('/') == source.lstrip('/'):
            return np.eye(4)
        self._wanted = True
        unknown = f'where {source!r} stands, seen from {target!r}, is unknown'
        if Buffer is None:
            raise ValueError(f'{unknown}: tf2_ros is not installed; set reference.extrinsics')
        if self._refusal:
            raise ValueError(f'{unknown}: {self._refusal} Or set reference.extrinsics')
        buffer = self._buffer  # close() in the executor's thread may take it away
        if buffer is None:
            raise ValueError(f'{unknown}: /tf was not read yet')
        try:
            found = buffer.lookup_transform(target, source, Time.from_msg(stamp))
        except TransformException as error:
            raise ValueError(
                f'{unknown}: {error}; publish it on /tf, or set reference.extrinsics'
            ) from error
        return transform_to_matrix(found.transform)

    def follow(self) -> None:
        """
        Listen as soon as matrix() was asked for more than one frame; /tf is a busy topic.

        When the middleware refuses it, matrix() says so until close().
        """
        if not self._wanted or self._listener or self._refusal or Buffer is None:
            return
        buffer = Buffer()
        try:
            self._listener = TransformListener(buffer, self._node)
        except rclpy_implementation.RCLError as error:
            self._refusal = refusal('/tf', error)
        else:
            self._buffer = buffer

    def clear(self) -> None:
        """
        Forget what moves, in a jump back in time: tf2 ignores what is older than its last 10 s.

        What is static stays. From any thread.
        """
        buffer = self._buffer
        if buffer is not None:
            buffer.clear()

    def close(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.unregister()
        self._buffer = self._listener = None
        self._refusal = ''


def _turn(axis: int, angle: float) -> np.ndarray:
    """Return the right-handed rotation (3, 3) about x, y or z."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    result = np.eye(3)
    result[first, first] = result[second, second] = math.cos(angle)
    result[first, second], result[second, first] = -math.sin(angle), math.sin(angle)
    return result
