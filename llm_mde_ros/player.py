"""Publish the colour images and CameraInfo of a bag as its camera did: same stamps, same pace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
import time

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from llm_mde_ros.bags import MESSAGE_CLASSES, BagMessage, BagReader, CameraTopics
from llm_mde_ros.recorder import Recorder

SETTLE_S = 0.5  # the reader may learn of a match a little later than the writer


class Player:
    """
    The camera of a bag.

    `images` counts every image, `published_s` has the time.perf_counter() of those that DDS took
    by stamp (ns), `behind_s` says by how much the latest message was later than in the bag.
    """

    def __init__(
        self,
        node: Node,
        source: BagReader,
        topics: CameraTopics,
        *,
        image_topic: str,
        info_topic: str,
    ) -> None:
        self.published_s: dict[int, float] = {}
        self.images = 0
        self.behind_s = 0.0
        self.last_publish_s = time.perf_counter()
        self._source, self._image, self._info = source, topics.image, topics.camera_info
        names = {topics.image: image_topic}
        if topics.camera_info:
            names[topics.camera_info] = info_topic
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        self._publishers = {
            topic: node.create_publisher(MESSAGE_CLASSES[source.topics[topic]], name, qos)
            for topic, name in names.items()
        }

    @property
    def topics(self) -> dict[str, type]:
        """Return the published topics with their message types."""
        return {p.topic_name: p.msg_type for p in self._publishers.values()}

    def wait_for_readers(self, *, timeout_s: float) -> None:
        """Wait until somebody listens; RuntimeError when nobody does in time."""
        deadline_s = time.monotonic() + timeout_s
        while not all(p.get_subscription_count() for p in self._publishers.values()):
            if time.monotonic() > deadline_s:
                names = ', '.join(p.topic_name for p in self._publishers.values())
                raise RuntimeError(f'The node did not subscribe to {names} in {timeout_s:g} s.')
            time.sleep(0.05)
        time.sleep(SETTLE_S)

    def play(
        self,
        *,
        rate: float,
        recorder: Recorder,
        on_frame: Callable[[int, int], None],
    ) -> None:
        """Publish everything at the bag's pace times `rate`, and hand it to the recorder."""
        total = self._source.count(self._image)
        start_s, first_ns = time.perf_counter(), None
        for message in self._messages():
            first_ns = message.time_ns if first_ns is None else first_ns
            due_s = start_s + (message.time_ns - first_ns) / 1e9 / rate
            time.sleep(max(0.0, due_s - time.perf_counter()))
            self.behind_s = max(self.behind_s, time.perf_counter() - due_s)
            self._publish(message, recorder)
            if message.topic == self._image:
                on_frame(self.images, total)

    def _messages(self) -> Iterator[BagMessage]:
        """Yield the messages, CameraInfo before the image of the same time."""
        messages = self._source.messages(self._publishers.keys())
        for _, together in groupby(messages, key=lambda message: message.time_ns):
            yield from sorted(together, key=lambda message: message.topic != self._info)

    def _publish(self, message: BagMessage, recorder: Recorder) -> None:
        publisher = self._publishers[message.topic]
        self.images += message.topic == self._image
        self.last_publish_s = time.perf_counter()
        try:
            publisher.publish(message.cdr)
        except rclpy_implementation.RCLError:  # the node is too slow; the image counts as lost
            return
        recorder.write(publisher.topic_name, message.cdr)
        if message.topic == self._image:
            self.published_s[message.stamp_ns] = self.last_publish_s
