"""A subscription with the quality of service that the publishers of its topic offer."""

from __future__ import annotations

from collections.abc import Callable
import time
from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.topic_endpoint_info import TopicEndpointInfo

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

# Callbacks only store the message, so that this bridges a moment without the processor.
HISTORY_DEPTH = 10
BEST_EFFORT = ReliabilityPolicy.BEST_EFFORT
TRY_AGAIN_AFTER_S = 5.0  # where no subscription could be made: each attempt fills the log of DDS


class MatchedSubscription:
    """
    Subscribes, and again when the publishers' quality of service or the wanted topic changes.

    A best-effort reader on a reliable writer loses large images; a reliable reader on a
    best-effort writer gets nothing. So: reliable if all publishers are, likewise transient local
    (a camera_info that is sent once). Call follow() now and then.
    """

    def __init__(self, node: Node, callback: Callable[[Any], None], *, mend: str) -> None:
        self._node = node
        self._callback = callback
        self._mend = mend  # what to do about messages of another type
        self._subscription = None
        self._current: tuple | None = None
        self.topic = ''
        self.publishers = 0
        self.problem = ''  # why messages, at least of a publisher, cannot come, and what to do
        self.receives_since_s: float | None = None  # or tries to; time.monotonic; None: not now
        self._refusal = ''  # why there is no subscription
        self._try_at_s = 0.0  # time.monotonic

    def follow(
        self, message_type: type, topic: str, *, reliability: str, receive: bool = True
    ) -> None:
        """
        Subscribe as asked for; reliability is auto, reliable or best_effort.

        With receive=False there is no subscription (it saves the link and the processor), but
        the publishers are still counted. One that the middleware refuses, as under a security
        policy, is a `problem`, and is tried again.
        """
        offers = self._node.get_publishers_info_by_topic(topic)
        self.publishers, self.topic = len(offers), topic
        problem = _problem(offers, message_type, topic, reliability, mend=self._mend)
        if not receive:
            self.close()
            self._tell(problem)
            return
        offers = [offer.qos_profile for offer in offers]
        if reliability == 'auto':
            best_effort = any(o.reliability == BEST_EFFORT for o in offers)
            reliability = 'best_effort' if best_effort else 'reliable'
        latched = bool(offers) and all(
            o.durability == DurabilityPolicy.TRANSIENT_LOCAL for o in offers
        )
        wanted = message_type, topic, reliability, latched
        now_s = time.monotonic()
        if wanted != self._current:
            self.close()
            self._current, self.receives_since_s, self._try_at_s = wanted, now_s, now_s
        if self._subscription is None and now_s >= self._try_at_s:
            self._try_at_s = now_s + TRY_AGAIN_AFTER_S
            self._subscribe(*wanted)
        self._tell(self._refusal or problem)

    def close(self) -> None:
        """Stop receiving; nothing happens when there is no subscription."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._subscription = self._current = self.receives_since_s = None
        self._refusal = ''

    def _subscribe(self, message_type: type, topic: str, reliability: str, latched: bool) -> None:
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        qos = QoSProfile(
            depth=HISTORY_DEPTH,
            reliability=ReliabilityPolicy[reliability.upper()],
            durability=durability,
        )
        try:
            self._subscription = self._node.create_subscription(
                message_type,
                topic,
                self._callback,
                qos,
                # rclpy would warn of what the next follow() mends; what it cannot is a `problem`.
                event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
                # Reliability and durability follow the publishers, an override would freeze them.
                qos_overriding_options=QoSOverridingOptions((QoSPolicyKind.DEPTH,)),
            )
        except rclpy_implementation.RCLError as error:
            self._refusal = refusal(topic, error)
        else:
            self._refusal = ''

    def _tell(self, problem: str) -> None:
        if problem and problem != self.problem:
            self._node.get_logger().warning(problem)
        self.problem = problem


def refusal(topic: str, error: Exception) -> str:
    """Return that a topic cannot be subscribed to, why, and what to do."""
    reason = ' '.join(str(error).split())
    return (
        f'{topic} cannot be subscribed to ({reason}): with SROS 2, make a policy that allows it '
        '(python -m llm_mde_ros.sros2_policy).'
    )


def _problem(
    offers: list[TopicEndpointInfo],
    message_type: type,
    topic: str,
    reliability: str,
    *,
    mend: str,
) -> str:
    """Return why messages of one of the publishers cannot come, and what to do; empty: all can."""
    expected = f'{message_type.__module__.partition(".")[0]}/msg/{message_type.__name__}'
    for offer in offers:
        who = f'{offer.node_namespace.rstrip("/")}/{offer.node_name}'
        if offer.topic_type != expected:
            return f'{who} publishes {topic} as {offer.topic_type}, expected {expected}: {mend}.'
        if (reliability, offer.qos_profile.reliability) == ('reliable', BEST_EFFORT):
            return (
                f'{who} offers {topic} best effort only, so that nothing arrives: set '
                "image_reliability to 'auto'."
            )
    return ''
