"""Playing a bag when DDS refuses messages, and on a machine that is too slow."""

import time
from types import SimpleNamespace

from rclpy.impl.implementation_singleton import rclpy_implementation
import small_bags

from llm_mde_ros.bags import BagReader, find_camera_topics
from llm_mde_ros.player import Player


class Publisher:
    """Refuses its second message."""

    def __init__(self, message_type: type, topic: str) -> None:
        self.msg_type, self.topic_name, self.calls = message_type, topic, 0

    def publish(self, _cdr: bytes) -> None:
        self.calls += 1
        if self.calls == 2:
            raise rclpy_implementation.RCLError('cannot publish data')


def test_an_image_that_dds_refuses_counts_as_played_but_not_as_published(tmp_path):
    bag = small_bags.write_rosbag2(tmp_path / 'bag', [small_bags.colour(n) for n in range(3)])
    node = SimpleNamespace(create_publisher=lambda kind, name, _qos: Publisher(kind, name))
    written = []
    recorder = SimpleNamespace(write=lambda topic, _cdr: written.append(topic))
    shown = []
    with BagReader(bag) as source:
        topics = find_camera_topics(source)
        player = Player(node, source, topics, image_topic='/image', info_topic='/info')
        player.play(rate=10.0, recorder=recorder, on_frame=lambda *done: shown.append(done))
    assert player.images == 3
    assert list(player.published_s) == [
        small_bags.START_NS,
        small_bags.START_NS + 2 * small_bags.PERIOD_NS,
    ]
    assert written == ['/image'] * 2
    assert shown[-1] == (3, 3)


def test_a_player_that_falls_behind_says_by_how_much(tmp_path):
    bag = small_bags.write_rosbag2(tmp_path / 'bag', [small_bags.colour(n) for n in range(3)])
    node = SimpleNamespace(create_publisher=lambda kind, name, _qos: Publisher(kind, name))
    recorder = SimpleNamespace(write=lambda _topic, _cdr: time.sleep(0.3))
    with BagReader(bag) as source:
        topics = find_camera_topics(source)
        player = Player(node, source, topics, image_topic='/image', info_topic='/info')
        player.play(rate=1e6, recorder=recorder, on_frame=lambda *_: None)
    assert player.behind_s >= 0.3
