from __future__ import annotations

import math
from typing import Any

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Transform, TransformStamped
import numpy as np
import pytest
from rclpy.executors import SingleThreadedExecutor

from llm_mde_ros import extrinsics
from llm_mde_ros.extrinsics import (
    FrameTransforms,
    move_points,
    parse_extrinsics,
    sensor_to_optical,
    transform_to_matrix,
)

QUARTER = math.pi / 2


def moved(point, *pose, sensor_is_optical=False):
    matrix = sensor_to_optical(pose, sensor_is_optical=sensor_is_optical)
    return move_points(np.array([point], float), matrix)[0]


def test_what_is_ahead_of_a_sensor_beside_the_camera_is_ahead_of_the_camera():
    # 2 m ahead of a scan that stands 0.1 m ahead, 0.3 m left and 0.5 m above
    np.testing.assert_allclose(moved((2, 0, 0), 0.1, 0.3, 0.5, 0, 0, 0), (-0.3, -0.5, 2.1))


@pytest.mark.parametrize(
    ('turn', 'expected'),
    [
        ((0, 0, QUARTER), (-2, 0, 0)),  # turned left: its ahead is our left
        ((0, QUARTER, 0), (0, 2, 0)),  # pitched down: its ahead is our down
        ((QUARTER, 0, 0), (0, 0, 2)),  # rolled: ahead stays
        ((QUARTER, 0, QUARTER), (-2, 0, 0)),  # roll first, about fixed axes
    ],
)
def test_turns_are_right_handed_about_fixed_axes(turn, expected):
    np.testing.assert_allclose(moved((2, 0, 0), 0, 0, 0, *turn), expected, atol=1e-12)


def test_roll_comes_before_yaw():
    # the sensor's left: rolled it is up, which a yaw does not move; the other way it is behind
    point = moved((0, 2, 0), 0, 0, 0, QUARTER, 0, QUARTER)
    np.testing.assert_allclose(point, (0, -2, 0), atol=1e-12)


def test_points_of_a_depth_camera_are_optical_already():
    point = moved((0.2, -0.1, 3.0), 0, 0, 0, 0, 0, 0, sensor_is_optical=True)
    np.testing.assert_allclose(point, (0.2, -0.1, 3.0))
    # a depth camera 5 cm to the right sees things further left
    point = moved((0.2, -0.1, 3.0), 0, -0.05, 0, 0, 0, 0, sensor_is_optical=True)
    np.testing.assert_allclose(point, (0.25, -0.1, 3.0))


@pytest.mark.parametrize('text', ['1 2 3 4 5 6', '1, 2, 3, 4, 5, 6', ' 1 2.0 3e0,4 5 6 '])
def test_extrinsics_are_six_numbers(text):
    assert parse_extrinsics(text) == (1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize('text', ['', '0 0 0', '0 0 0 0 0 nan', '0 0 0 0 0 x', '0 0 0 0 0 0 0'])
def test_other_extrinsics_are_refused_with_their_text(text):
    with pytest.raises(ValueError, match=f"extrinsics are '{text}', expected six numbers"):
        parse_extrinsics(text)


def test_a_transform_moves_points_of_the_child_into_the_parent():
    transform = Transform()
    transform.translation.x, transform.translation.z = 1.0, 0.5
    half = math.radians(30) / 2
    transform.rotation.z, transform.rotation.w = math.sin(half), math.cos(half)
    point = move_points(np.array([[2.0, 0, 0]]), transform_to_matrix(transform))[0]
    expected = (1 + 2 * math.cos(math.radians(30)), 2 * math.sin(math.radians(30)), 0.5)
    np.testing.assert_allclose(point, expected)


def test_both_ways_to_say_where_a_laser_stands_agree():
    transform = Transform()  # of a laser 0.3 m left of the camera, in its optical frame
    transform.translation.x = -0.3
    transform.rotation.x, transform.rotation.y = 0.5, -0.5
    transform.rotation.z, transform.rotation.w = 0.5, 0.5
    matrix = sensor_to_optical((0, 0.3, 0, 0, 0, 0), sensor_is_optical=False)
    np.testing.assert_allclose(transform_to_matrix(transform), matrix, atol=1e-12)


@pytest.mark.parametrize('length', [0.0, math.nan, math.inf])
def test_a_transform_without_a_rotation_is_refused(length):
    transform = Transform()
    transform.rotation.w = length
    with pytest.raises(ValueError, match=f'quaternion of length {length:g}, expected 1'):
        transform_to_matrix(transform)


@pytest.mark.parametrize('distance', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('axis', ['x', 'y', 'z'])
def test_a_transform_to_nowhere_is_refused(axis, distance):
    transform = Transform()
    setattr(transform.translation, axis, distance)
    with pytest.raises(ValueError, match=f'a transform moves by .*{distance:g}.* m'):
        transform_to_matrix(transform)


def test_one_frame_needs_no_transform(camera_node):
    transforms = FrameTransforms(camera_node)
    matrix = transforms.matrix(target='camera_optical', source='/camera_optical', stamp=Time())
    np.testing.assert_array_equal(matrix, np.eye(4))


def test_an_unknown_transform_is_a_sentence_with_both_frames_and_what_to_do(camera_node):
    transforms = FrameTransforms(camera_node)
    with pytest.raises(ValueError, match=r"'laser'.*'camera_optical', is unknown"):
        transforms.matrix(target='camera_optical', source='laser', stamp=Time())
    transforms.follow()
    with pytest.raises(ValueError, match=r"'laser'.*'camera_optical'.*set reference.extrinsics"):
        transforms.matrix(target='camera_optical', source='laser', stamp=Time())
    transforms.close()


def test_a_static_transform_is_found_where_tf2_is_installed(camera_node):
    tf2_ros = pytest.importorskip('tf2_ros')
    transforms = FrameTransforms(camera_node)
    stamped = TransformStamped(child_frame_id='laser')
    stamped.header.frame_id = 'camera_optical'
    stamped.transform.translation.x = -0.3
    broadcaster = tf2_ros.StaticTransformBroadcaster(camera_node)
    broadcaster.sendTransform(stamped)
    executor = SingleThreadedExecutor(context=camera_node.context)
    executor.add_node(camera_node)
    for _ in range(200):
        try:
            matrix = transforms.matrix(target='camera_optical', source='laser', stamp=Time(sec=9))
            break
        except ValueError:
            transforms.follow()
            executor.spin_once(timeout_sec=0.05)
    np.testing.assert_allclose(matrix[:3, 3], (-0.3, 0, 0))
    transforms.clear()  # what is static stays
    matrix = transforms.matrix(target='camera_optical', source='laser', stamp=Time(sec=9))
    np.testing.assert_allclose(matrix[:3, 3], (-0.3, 0, 0))
    executor.shutdown()
    transforms.close()


class StandIn:
    """What the node uses of tf2_ros, where that is not installed: it knows one transform."""

    class TransformException(Exception):  # noqa: N818  tf2's name
        pass

    class Buffer:
        cleared = 0

        def lookup_transform(self, target: str, source: str, time: Any) -> TransformStamped:
            if (target, source) != ('camera_optical', 'laser'):
                raise StandIn.TransformException(f'"{source}" passed to lookupTransform')
            found = TransformStamped()
            found.transform.translation.x = time.nanoseconds / 1e9
            return found

        def clear(self) -> None:
            StandIn.Buffer.cleared += 1

    class TransformListener:
        listening = 0

        def __init__(self, buffer: StandIn.Buffer, node: Any) -> None:
            StandIn.TransformListener.listening += 1

        def unregister(self) -> None:
            StandIn.TransformListener.listening -= 1


def test_transforms_are_asked_for_at_the_time_of_the_message(camera_node, monkeypatch):
    for name in ('Buffer', 'TransformListener', 'TransformException'):
        monkeypatch.setattr(extrinsics, name, getattr(StandIn, name), raising=False)
    transforms = FrameTransforms(camera_node)
    laser = {'target': 'camera_optical', 'source': 'laser', 'stamp': Time(sec=9)}
    transforms.follow()
    assert StandIn.TransformListener.listening == 0  # nobody asked
    with pytest.raises(ValueError, match='/tf was not read yet'):
        transforms.matrix(**laser)
    transforms.follow()
    transforms.follow()
    assert StandIn.TransformListener.listening == 1
    np.testing.assert_allclose(transforms.matrix(**laser)[:3, 3], (9.0, 0, 0))
    with pytest.raises(ValueError, match=r'"lidar" passed to .*publish it on /tf, or set'):
        transforms.matrix(**laser | {'source': 'lidar'})
    transforms.clear()
    assert StandIn.Buffer.cleared == 1
    transforms.close()
    assert StandIn.TransformListener.listening == 0
    with pytest.raises(ValueError, match='/tf was not read yet'):
        transforms.matrix(**laser)
