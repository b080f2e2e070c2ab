"""The camera whose calibration is published while the node is being configured."""

from __future__ import annotations

import time

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo

from llm_mde_core.geometry import Camera
from llm_mde_ros.conversions import camera_from_info, rectified_info

# From Jazzy on rclpy has a service for it, which the SROS 2 policy does not allow to this node.
NO_TYPE_DESCRIPTIONS = Parameter('start_type_description_service', value=False)


def announced_camera(node: Node, *, timeout_s: float, rectified: bool) -> Camera | None:
    """
    Wait for the first camera_info and return its camera; None when it never comes or is unusable.

    rectified: as in CameraSource, which says what is wrong with it once there are images.
    """
    infos: list[CameraInfo] = []
    # A node of its own, because the executor of the other one is busy with configuring. It has
    # nothing that the SROS 2 policy of the other one, in whose enclave it is, does not allow.
    listener = rclpy.create_node(
        f'{node.get_name()}_configuring',
        context=node.context,
        use_global_arguments=False,
        enable_rosout=False,
        start_parameter_services=False,
        parameter_overrides=[NO_TYPE_DESCRIPTIONS],
    )
    executor = SingleThreadedExecutor(context=node.context)
    try:
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)  # fits every offer
        topic = node.resolve_topic_name('camera_info')
        listener.create_subscription(CameraInfo, topic, infos.append, qos)
        executor.add_node(listener)
        end_s = time.monotonic() + timeout_s
        while not infos and (left_s := end_s - time.monotonic()) > 0:
            executor.spin_once(timeout_sec=left_s)
    except rclpy_implementation.RCLError:  # the topic is refused: told when the node is active
        return None
    finally:
        executor.shutdown()
        listener.destroy_node()
    try:
        return camera_from_info(rectified_info(infos[0]) if rectified else infos[0])
    except (IndexError, ValueError):
        return None
