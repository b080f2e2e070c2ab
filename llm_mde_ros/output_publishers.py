"""The publishers of the outputs: who listens to them, and sending without losing the node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from llm_mde_ros.topics import OUTPUTS, Topic

try:
    from rclpy.event_handler import PublisherEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks


class OutputPublishers:
    """One lifecycle publisher per output whose message type is installed."""

    def __init__(self, node: LifecycleNode, *, reliability: str, depth: int) -> None:
        self._node = node
        self._qos = {'reliability': ReliabilityPolicy[reliability.upper()], 'depth': depth}
        self._publishers: dict[str, LifecyclePublisher] = {
            topic.name: self._create(topic) for topic in OUTPUTS if topic.message_type is not None
        }

    def destroy(self) -> None:
        """Remove the publishers from the node."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = {}

    def subscribers(self) -> dict[str, int]:
        """Return the number of subscribers of each output."""
        return {name: p.get_subscription_count() for name, p in self._publishers.items()}

    def publish(self, messages: Mapping[str, Any]) -> list[str]:
        """Send the messages by topic name and return the topics where that failed."""
        failed = []
        for name, message in messages.items():
            try:
                self._publishers[name].publish(message)
            except rclpy_implementation.RCLError:  # a reliable reader that cannot keep up
                failed.append(name)
        return failed

    def _create(self, topic: Topic) -> LifecyclePublisher:
        return self._node.create_lifecycle_publisher(
            topic.message_type,
            topic.name,
            QoSProfile(**self._qos),
            event_callbacks=PublisherEventCallbacks(
                incompatible_qos=lambda _event: self._warn_incompatible_qos(topic.name)
            ),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _warn_incompatible_qos(self, name: str) -> None:
        self._node.get_logger().warning(
            f'A subscriber of {name} asks for more than is offered and gets nothing: subscribe '
            'volatile and, with output_reliability best_effort, best effort.'
        )
