"""The subscriber of the benchmark: a process of its own that tells when each message arrived."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
import threading
import time
from typing import NamedTuple

from rclpy.qos import QoSProfile, ReliabilityPolicy

from llm_mde_ros.bags import header_stamp_ns
from llm_mde_ros.dds_domain import spinning_node
from llm_mde_ros.topics import OUTPUTS

STOP_S = 10.0


class Arrival(NamedTuple):
    """One message at the subscriber."""

    topic: str
    stamp_ns: int
    arrived_ns: int  # of the same clock as the stamp: time.time_ns()


class Listener:
    """The process, seen from its parent."""

    def __init__(self, pid: int, connection: Connection) -> None:
        self.pid = pid
        self._connection = connection

    def arrivals(self, *, timeout_s: float) -> Iterator[Arrival]:
        """Yield what arrives until nothing has come for this long; RuntimeError when it ended."""
        try:
            while self._connection.poll(timeout_s):
                yield Arrival(*self._connection.recv())
        except EOFError as error:
            raise RuntimeError('The subscriber process has ended.') from error


@contextmanager
def listener(topics: tuple[str, ...]) -> Iterator[Listener]:
    """Subscribe to these outputs of the node, in another process, until the context ends."""
    context = get_context('spawn')
    ours, theirs = context.Pipe()
    process = context.Process(target=_listen, args=(theirs, topics), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Listener(process.pid, ours)
    finally:
        ours.close()  # which ends it
        process.join(STOP_S)
        if process.is_alive():
            process.kill()
            process.join()


def _listen(connection: Connection, topics: tuple[str, ...]) -> None:
    ended = threading.Event()
    types = {topic.name: topic.message_type for topic in OUTPUTS}

    def tell(topic: str, cdr: bytes) -> None:
        try:
            connection.send((topic, header_stamp_ns(cdr), time.time_ns()))
        except OSError:
            ended.set()

    with spinning_node('bench_subscriber') as node:
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        for topic in topics:
            # read as bytes: what is measured is the node, not the reader's conversion
            node.create_subscription(
                types[topic], topic, lambda cdr, topic=topic: tell(topic, cdr), qos, raw=True
            )
        while not ended.is_set():
            with suppress(InterruptedError):
                if connection.poll(0.2):
                    return  # the parent has closed its end
