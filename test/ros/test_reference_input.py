"""The reference through real publishers: found by its type, followed when the topic changes."""

import time

from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, Imu, LaserScan, PointCloud2
from std_msgs.msg import Header
import torch

from llm_mde_core.geometry import Camera
from llm_mde_ros.conversions import camera_to_info, depth_to_image, empty_cloud, packed_points
from llm_mde_ros.reference_input import ReferenceInput
from llm_mde_ros.reference_settings import ReferenceSettings

CAMERA = Camera(width=64, height=48, fx=60.0, fy=60.0, cx=31.5, cy=23.5)
HERE = '0 0 0 0 0 0'
HEADER = Header(frame_id='sensor')
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.fixture
def world(own_domain):
    """Return the node with its input, the robot's node, and their executor."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node, robot = (Node(name, context=context) for name in ('depth_node', 'robot'))
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    executor.add_node(robot)
    reference = ReferenceInput(node)
    yield reference, robot, executor
    reference.close()
    executor.shutdown()
    node.destroy_node()
    robot.destroy_node()
    context.try_shutdown()


def wall_scan():
    angles = np.linspace(-1, 1, 201)
    ranges = (2 / np.cos(angles)).astype(np.float32).tolist()
    return LaserScan(
        header=HEADER, angle_min=-1.0, angle_increment=0.01, range_max=30.0, ranges=ranges
    )


def wall_cloud():
    y, z = np.meshgrid(np.linspace(-0.5, 0.5, 30), np.linspace(-0.5, 0.5, 30))
    cloud = empty_cloud(30, 30, HEADER, color=False)
    packed_points(cloud)[:] = np.stack([0 * y + 2, y, z], axis=-1)
    return cloud


def wall_image():
    return depth_to_image(np.full((48, 64), 2.0, np.float32), HEADER)


def wait_until(condition, reference, executor, topic, *send):
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s, reference.accuracy.verdict()
        for publisher, message in send:
            publisher.publish(message)
        reference.follow(topic)
        executor.spin_once(timeout_sec=0.05)


def compares(reference, topic, depth_m=2.2):
    """Process a frame and tell whether it was compared."""
    accuracy = reference.accuracy
    before = accuracy.figures().frames
    wall = torch.full((48, 64), depth_m)
    accuracy.compare(
        wall,
        published=wall,
        camera=CAMERA,
        header=Header(frame_id='camera_optical'),
        settings=ReferenceSettings(reference_topic=topic, reference_extrinsics=HERE),
        limits_m=(0.1, 20.0),
    )
    return accuracy.figures().frames > before


@pytest.mark.parametrize('qos', [5, BEST_EFFORT], ids=['reliable', 'best_effort'])
@pytest.mark.parametrize(
    ('message_type', 'make'), [(LaserScan, wall_scan), (PointCloud2, wall_cloud)]
)
def test_a_sensor_is_followed_whatever_its_type_and_qos(world, message_type, make, qos):
    reference, robot, executor = world
    send = robot.create_publisher(message_type, 'sensor', qos), make()
    wait_until(lambda: compares(reference, 'sensor'), reference, executor, 'sensor', send)
    assert reference.accuracy.figures().abs_rel == pytest.approx(0.1, rel=1e-4)


def test_a_depth_image_comes_with_the_camera_info_beside_it(world):
    reference, robot, executor = world
    topic = '/stereo/depth/image'
    image = robot.create_publisher(Image, topic, 5), wall_image()
    info = (
        robot.create_publisher(CameraInfo, '/stereo/depth/camera_info', 5),
        camera_to_info(CAMERA, HEADER, None),
    )
    wait_until(lambda: compares(reference, topic), reference, executor, topic, image, info)
    assert reference.accuracy.figures().abs_rel == pytest.approx(0.1, rel=1e-4)


def test_another_topic_is_followed_and_the_old_messages_forgotten(world):
    reference, robot, executor = world
    scan = robot.create_publisher(LaserScan, 'scan', 5), wall_scan()
    cloud = robot.create_publisher(PointCloud2, 'cloud', 5), wall_cloud()
    wait_until(lambda: compares(reference, 'scan'), reference, executor, 'scan', scan)
    reference.follow('cloud')
    assert not compares(reference, 'cloud')
    wait_until(lambda: compares(reference, 'cloud'), reference, executor, 'cloud', scan, cloud)
    wait_until(lambda: robot.count_subscribers('scan') == 0, reference, executor, 'cloud')
    wait_until(lambda: robot.count_subscribers('cloud') == 0, reference, executor, '')


def test_nothing_is_received_while_nobody_needs_it(world):
    reference, robot, executor = world
    robot.create_publisher(LaserScan, 'scan', 5)
    wait_until(lambda: robot.count_subscribers('scan') == 1, reference, executor, 'scan')
    reference.follow('scan', receive=False)
    end_s = time.monotonic() + 20
    while robot.count_subscribers('scan') and time.monotonic() < end_s:
        executor.spin_once(timeout_sec=0.05)
    assert robot.count_subscribers('scan') == 0


def test_a_topic_that_nobody_publishes_is_told(world):
    reference, _, _ = world
    reference.follow('scan')
    level, sentence = reference.accuracy.verdict()
    assert level == DiagnosticStatus.WARN
    assert sentence.startswith('Nobody publishes /scan')


def test_a_topic_of_another_type_is_told(world):
    reference, robot, executor = world
    robot.create_publisher(Imu, 'imu', 5)
    wait_until(
        lambda: 'is sensor_msgs/msg/Imu, expected one of' in reference.accuracy.verdict()[1],
        reference,
        executor,
        'imu',
    )


def test_the_node_is_no_judge_of_itself(world):
    reference, _, executor = world
    reference._node.create_publisher(Image, 'depth/image', 5)
    wait_until(
        lambda: '/depth/image is an output of this node' in reference.accuracy.verdict()[1],
        reference,
        executor,
        'depth/image',
    )
