"""A ROS domain of our own on this machine, and a node in it that spins in the background."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
import os
import random
from threading import Thread

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from llm_mde_ros.share import config_file

LAST_DOMAIN_ID = 101  # with a higher one the ports may collide with those of the system


def use_own_domain() -> None:
    """
    Set the environment of this process and its children, before rclpy.init().

    Nothing is heard from or sent to other nodes, and large messages have shared memory.
    """
    profile = str(config_file('fastdds.xml'))
    os.environ.update(
        ROS_DOMAIN_ID=str(random.randint(1, LAST_DOMAIN_ID)),
        ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST',
        FASTDDS_DEFAULT_PROFILES_FILE=profile,
    )
    if os.environ.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy'):
        os.environ['FASTRTPS_DEFAULT_PROFILES_FILE'] = profile
    if os.environ.get('ROS_DISTRO') == 'humble':  # knows no discovery range
        os.environ['ROS_LOCALHOST_ONLY'] = '1'


@contextmanager
def spinning_node(name: str) -> Iterator[Node]:
    """Give a node whose callbacks run in a thread; Ctrl-C stays with Python."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Node(name)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = Thread(target=_spin, args=(executor,), name='spin', daemon=True)
    try:
        thread.start()
        yield node
    finally:
        executor.shutdown()
        thread.join()
        node.destroy_node()
        rclpy.try_shutdown()


def _spin(executor: SingleThreadedExecutor) -> None:
    with suppress(ExternalShutdownException):
        executor.spin()
