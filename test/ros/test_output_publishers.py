"""Publishing without losing the node."""

from types import SimpleNamespace

from rclpy.impl.implementation_singleton import rclpy_implementation
from sensor_msgs.msg import Image

from llm_mde_ros.output_publishers import OutputPublishers


class Publisher:
    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.sent: list = []

    def publish(self, message: object) -> None:
        if self.topic == 'confidence':
            raise rclpy_implementation.RCLError('cannot publish data')
        self.sent.append(message)

    def get_subscription_count(self) -> int:
        return len(self.topic)


def test_a_topic_that_cannot_be_published_is_named_and_the_others_go_out():
    made = {}

    def create(_type: type, topic: str, _qos: object, **_: object) -> Publisher:
        made[topic] = Publisher(topic)
        return made[topic]

    node = SimpleNamespace(create_lifecycle_publisher=create)
    publishers = OutputPublishers(node, reliability='reliable', depth=1)
    assert publishers.publish({'confidence': Image(), 'depth/image': Image()}) == ['confidence']
    assert made['depth/image'].sent == [Image()]
    assert publishers.subscribers()['points'] == len('points')
