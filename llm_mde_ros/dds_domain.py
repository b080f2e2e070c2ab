"""A ROS domain of our own on this machine, and a node in it that spins in the background."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
import errno
import os
import random
import socket
from threading import Thread

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from llm_mde_ros.share import config_file

# Of the DDS Interoperability Wire Protocol, 9.6.1: PB + d1, PG and DG.
FIRST_DISCOVERY_PORT = 7410
PORTS_OF_A_PARTICIPANT = 2
PORTS_OF_A_DOMAIN = 250
LOOKED_FOR = 8  # participants; Fast DDS numbers those of one process on, through its domains
LAST_DOMAIN_ID = 101  # with a higher one the ports may collide with those of the system


def use_own_domain() -> None:
    """
    Set the environment of this process and its children, before rclpy.init().

    Nothing is heard from or sent to other nodes, and large messages have shared memory.
    """
    profile = str(config_file('fastdds.xml'))
    os.environ.update(
        ROS_DOMAIN_ID=str(free_domain_id()),
        ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST',
        FASTDDS_DEFAULT_PROFILES_FILE=profile,
    )
    if os.environ.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy'):
        os.environ['FASTRTPS_DEFAULT_PROFILES_FILE'] = profile
    if os.environ.get('ROS_DISTRO') == 'humble':  # knows no discovery range
        os.environ['ROS_LOCALHOST_ONLY'] = '1'


def free_domain_id() -> int:
    """Return a random domain in which no participant of this machine seems to be."""
    domains = random.sample(range(1, LAST_DOMAIN_ID + 1), LAST_DOMAIN_ID)
    return next((domain for domain in domains if _is_free(domain)), domains[0])


def _is_free(domain: int) -> bool:
    try:
        for participant in range(LOOKED_FOR):
            with discovery_port(domain, participant):
                pass
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True


@contextmanager
def discovery_port(domain: int, participant: int = 0) -> Iterator[None]:
    """Hold the port of one participant of the domain; OSError when somebody else does."""
    port = FIRST_DISCOVERY_PORT + PORTS_OF_A_DOMAIN * domain + PORTS_OF_A_PARTICIPANT * participant
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(('', port))
        yield


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
