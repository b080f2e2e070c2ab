"""The publishers of the outputs: who listens to them, and sending without losing the node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from llm_mde_ros.topics import OUTPUTS, Topic

BEST_EFFORT_TO_RELIABLE = (ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE)


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

    def problem(self) -> str:
        """Return which subscriber gets nothing for its quality of service, and what to do."""
        for publisher in self._publishers.values():
            topic, offered = publisher.topic_name, publisher.qos_profile.reliability
            for reader in self._node.get_subscriptions_info_by_topic(topic):
                who = f'{reader.node_namespace.rstrip("/")}/{reader.node_name}'
                if reader.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL:
                    return (
                        f'{who} asks for {topic} transient local and gets nothing: subscribe '
                        'volatile.'
                    )
                if (offered, reader.qos_profile.reliability) == BEST_EFFORT_TO_RELIABLE:
                    return (
                        f'{who} asks for {topic} reliable and gets nothing: subscribe best '
                        'effort, or start the node with output_reliability reliable.'
                    )
        return ''

    def _create(self, topic: Topic) -> LifecyclePublisher:
        return self._node.create_lifecycle_publisher(
            topic.message_type,
            topic.name,
            QoSProfile(**self._qos),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
