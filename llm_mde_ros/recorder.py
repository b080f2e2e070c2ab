"""Record topics that arrive over DDS into an mcap bag, and measure when they arrive."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from queue import Queue
from threading import Thread
import time

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosbags.interfaces import Connection

from llm_mde_ros.bags import create_bag, declare, header_stamp_ns

QUEUE_LENGTH = 64  # messages on their way to the disk; beyond that the reader waits


class Recorder:
    """
    Subscribe to raw messages, write them to a bag in a thread of its own, and keep the times.

    `arrivals_s` has the time.perf_counter() of every message of the timed topic by stamp (ns),
    `last_arrival_s` that of the last one; `counts` and `last` have the number of messages that
    arrived and the last one by topic.
    Use it as a context; the bag is complete when the context ends.
    """

    def __init__(self, path: Path, *, timed_topic: str) -> None:
        self.arrivals_s: dict[int, float] = {}
        self.counts: Counter[str] = Counter()
        self.last: dict[str, bytes] = {}
        self.last_arrival_s = time.perf_counter()
        self._timed_topic = timed_topic
        self._writer = create_bag(path)
        self._connections: dict[str, Connection] = {}
        self._queue: Queue[tuple[str, int, bytes] | None] = Queue(QUEUE_LENGTH)
        # daemon: an interrupt may come between its start and the beginning of the context
        self._thread = Thread(target=self._write_all, name='recorder', daemon=True)
        self._failure: OSError | None = None

    def __enter__(self) -> Recorder:
        self._writer.open()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()
        self._writer.close()
        if self._failure:
            raise self._failure

    def add_topic(self, topic: str, message_type: type) -> None:
        """Make a topic known to the bag; all of them before the first message."""
        package = message_type.__module__.partition('.')[0]
        type_name = f'{package}/msg/{message_type.__name__}'
        self._connections[topic] = declare(self._writer, topic, type_name)

    def subscribe(self, node: Node, topic: str, message_type: type) -> None:
        """Record what arrives on a topic."""
        node.create_subscription(
            message_type,
            topic,
            lambda cdr: self._on_message(topic, cdr),
            QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE),
            raw=True,
        )

    def write(self, topic: str, cdr: bytes) -> None:
        """Write a message that this process has published itself."""
        self._queue.put((topic, time.time_ns(), cdr))

    def _on_message(self, topic: str, cdr: bytes) -> None:
        if topic == self._timed_topic:
            self.last_arrival_s = time.perf_counter()
            self.arrivals_s.setdefault(header_stamp_ns(cdr), self.last_arrival_s)
        self.counts[topic] += 1
        self.last[topic] = cdr
        self.write(topic, cdr)

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            topic, time_ns, cdr = item
            if self._failure is None:
                try:
                    self._writer.write(self._connections[topic], time_ns, cdr)
                except OSError as error:  # told when the context ends; the node is not held up
                    self._failure = error
