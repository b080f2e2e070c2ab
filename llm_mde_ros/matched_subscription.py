"""A subscription with the quality of service that the publishers of its topic offer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

# Callbacks only store the message, so that this bridges a moment without the processor.
HISTORY_DEPTH = 5


class MatchedSubscription:
    """
    Subscribes, and again when the publishers' quality of service or the wanted topic changes.

    A best-effort reader on a reliable writer loses large images; a reliable reader on a
    best-effort writer gets nothing. So: reliable if all publishers are, likewise transient local
    (a camera_info that is sent once). Call follow() now and then.
    """

    def __init__(self, node: Node, callback: Callable[[Any], None]) -> None:
        self._node = node
        self._callback = callback
        self._subscription = None
        self._current: tuple | None = None
        self._asked_reliability = 'auto'
        self.topic = ''
        self.publishers = 0

    def follow(
        self, message_type: type, topic: str, *, reliability: str, receive: bool = True
    ) -> None:
        """
        Subscribe as asked for; reliability is auto, reliable or best_effort.

        With receive=False there is no subscription (it saves the link and the processor), but
        the publishers are still counted.
        """
        offers = self._node.get_publishers_info_by_topic(topic)
        self.publishers, self.topic = len(offers), topic
        self._asked_reliability = reliability
        if not receive:
            self.close()
            return
        offers = [offer.qos_profile for offer in offers]
        if reliability == 'auto':
            best_effort = any(o.reliability == ReliabilityPolicy.BEST_EFFORT for o in offers)
            reliability = 'best_effort' if best_effort else 'reliable'
        latched = bool(offers) and all(
            o.durability == DurabilityPolicy.TRANSIENT_LOCAL for o in offers
        )
        wanted = message_type, topic, reliability, latched
        if wanted != self._current:
            self.close()
            self._subscribe(*wanted)
            self._current = wanted

    def close(self) -> None:
        """Stop receiving; nothing happens when there is no subscription."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = self._current = None

    def _subscribe(self, message_type: type, topic: str, reliability: str, latched: bool) -> None:
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        self._subscription = self._node.create_subscription(
            message_type,
            topic,
            self._callback,
            QoSProfile(
                depth=HISTORY_DEPTH,
                reliability=ReliabilityPolicy[reliability.upper()],
                durability=durability,
            ),
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible_qos),
            # Reliability and durability follow the publishers, an override would freeze them.
            qos_overriding_options=QoSOverridingOptions((QoSPolicyKind.DEPTH,)),
        )

    def _on_incompatible_qos(self, _event: Any) -> None:
        if self._asked_reliability != 'auto':  # with auto, the next follow() mends it
            self._node.get_logger().warning(
                f'A publisher of {self.topic} offers best effort only, so that nothing arrives: '
                "set the parameter image_reliability to 'auto'."
            )
