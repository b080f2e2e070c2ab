"""A topic that the middleware refuses, as under a security policy, is told and tried again."""

from __future__ import annotations

from collections.abc import Callable
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
import pytest
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from sensor_msgs.msg import Image, LaserScan

from llm_mde_ros import extrinsics, matched_subscription
from llm_mde_ros.extrinsics import FrameTransforms
from llm_mde_ros.matched_subscription import MatchedSubscription
from llm_mde_ros.reference_input import ReferenceInput

REFUSED = 'could not create subscriber: topic not found in allow rule'


def refuse(*_: Any, **__: Any) -> None:
    raise rclpy_implementation.RCLError(REFUSED)


@pytest.fixture
def allow(camera_node: Node, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what lets the node subscribe again; until then it is refused."""
    create = camera_node.create_subscription
    monkeypatch.setattr(camera_node, 'create_subscription', refuse)
    return lambda: monkeypatch.setattr(camera_node, 'create_subscription', create)


@pytest.mark.usefixtures('allow')
def test_a_refused_topic_is_a_problem_and_not_tried_at_every_look(
    camera_node: Node, monkeypatch: pytest.MonkeyPatch
):
    tried = []

    def counted(*_: Any, **__: Any) -> None:
        tried.append(1)
        refuse()

    monkeypatch.setattr(camera_node, 'create_subscription', counted)
    images = MatchedSubscription(camera_node, print, mend='')
    for _ in range(3):
        images.follow(Image, '/image', reliability='auto')
    assert len(tried) == 1
    assert images.problem.startswith(f'/image cannot be subscribed to ({REFUSED}): ')
    assert 'policy' in images.problem
    assert images.receives_since_s is not None  # so that the diagnostics miss its images
    images.follow(Image, '/elsewhere', reliability='auto')
    assert images.problem.startswith('/elsewhere')
    images.follow(Image, '/elsewhere', reliability='auto', receive=False)
    assert images.problem == ''
    assert images.receives_since_s is None


def test_it_is_tried_again_later(
    camera_node: Node, allow: Callable[[], None], monkeypatch: pytest.MonkeyPatch
):
    images = MatchedSubscription(camera_node, print, mend='')
    images.follow(Image, '/image', reliability='auto')
    allow()
    monkeypatch.setattr(matched_subscription, 'TRY_AGAIN_AFTER_S', 0.0)
    images.follow(Image, '/image', reliability='auto')
    assert images.problem  # not yet
    now_s = time.monotonic()
    monkeypatch.setattr(matched_subscription.time, 'monotonic', lambda: now_s + 5.1)
    images.follow(Image, '/image', reliability='auto')
    assert images.problem == ''
    assert camera_node.count_subscribers('/image') == 1
    images.close()


@pytest.mark.usefixtures('allow')
def test_a_refused_reference_is_told_in_the_diagnostics(camera_node: Node, own_domain: None):
    robot = Node('robot', context=camera_node.context)
    robot.create_publisher(LaserScan, '/scan', 5)
    reference = ReferenceInput(camera_node)
    end_s = time.monotonic() + 20
    while REFUSED not in reference.accuracy.verdict()[1]:
        assert time.monotonic() < end_s, reference.accuracy.verdict()
        reference.follow('/scan')
        time.sleep(0.05)
    level, sentence = reference.accuracy.verdict()
    assert level == DiagnosticStatus.WARN
    assert sentence.startswith('/scan cannot be subscribed to')
    reference.follow('')
    assert REFUSED not in reference.accuracy.verdict()[1]
    reference.close()
    robot.destroy_node()


def test_refused_transforms_are_told_with_what_cannot_be_compared(
    camera_node: Node, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(extrinsics, 'Buffer', object)
    monkeypatch.setattr(extrinsics, 'TransformListener', refuse, raising=False)
    transforms = FrameTransforms(camera_node)
    for sentence in ('/tf was not read yet', f'/tf cannot be subscribed to ({REFUSED})'):
        with pytest.raises(ValueError, match='is unknown') as caught:
            transforms.matrix(target='camera_optical', source='laser', stamp=None)
        assert sentence in str(caught.value)
        transforms.follow()
    transforms.close()
