"""Subscriptions to the other sensor that depth is compared with, whatever its type."""

from __future__ import annotations

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2

from llm_mde_ros.extrinsics import FrameTransforms
from llm_mde_ros.live_accuracy import LiveAccuracy
from llm_mde_ros.matched_subscription import MatchedSubscription

TYPES = {
    'sensor_msgs/msg/Image': Image,
    'sensor_msgs/msg/LaserScan': LaserScan,
    'sensor_msgs/msg/PointCloud2': PointCloud2,
}


class ReferenceInput:
    """Feeds `accuracy`; call follow() now and then, from the thread of the executor."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._transforms = FrameTransforms(node)
        self.accuracy = LiveAccuracy(self._transforms)
        self._messages = MatchedSubscription(
            node, self.accuracy.add, mend='let one type be published there, or set reference.topic'
        )
        self._infos = MatchedSubscription(
            node, self.accuracy.add_camera_info, mend='remap it at its publisher'
        )
        self._topic = ''

    def follow(self, topic: str, *, receive: bool = True) -> None:
        """
        Subscribe to the topic with the type that its publishers have; '' is none.

        The camera_info of a depth image is the one beside it. receive=False: not now.
        """
        topic = self._node.resolve_topic_name(topic) if topic else ''
        if topic != self._topic:
            self.close()
            self.accuracy.restart()
            self._topic = topic
        message_type, self.accuracy.input_problem = self._find_type(topic)
        if message_type is None:
            return
        self._messages.follow(message_type, topic, reliability='auto', receive=receive)
        problem = self._messages.problem
        if message_type is Image:
            beside = f'{topic.rpartition("/")[0]}/camera_info'
            self._infos.follow(CameraInfo, beside, reliability='auto', receive=receive)
            problem = problem or self._infos.problem
        self.accuracy.input_problem = problem
        self._transforms.follow()

    def close(self) -> None:
        """Stop receiving."""
        self._messages.close()
        self._infos.close()
        self._transforms.close()

    def _find_type(self, topic: str) -> tuple[type | None, str]:
        """Return the class of the messages, or None and a sentence."""
        if not topic:
            return None, ''
        offers = self._node.get_publishers_info_by_topic(topic)
        if not offers:
            return None, f'Nobody publishes {topic}: start the sensor, or set reference.topic.'
        own = self._node.get_name(), self._node.get_namespace()
        if own in {(offer.node_name, offer.node_namespace) for offer in offers}:
            return None, f'{topic} is an output of this node: set reference.topic to a sensor.'
        names = sorted({offer.topic_type for offer in offers})
        known = [TYPES[name] for name in names if name in TYPES]
        if not known:
            return None, f'{topic} is {", ".join(names)}, expected one of: {", ".join(TYPES)}.'
        return known[0], ''
