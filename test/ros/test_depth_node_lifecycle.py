"""The lifecycle of the node's process, from a start that fails to its end."""

from __future__ import annotations

from pathlib import Path
import signal
from typing import Any

import numpy as np
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import Image


def test_a_missing_model_is_told_and_mended_then_every_transition_works(
    robot_with: Any, tiny_model_dir: Path, rgb: np.ndarray
):
    parameters = {
        'model': '/no/such/model',
        'device': 'cpu',
        'points.strid': 3,
        'qos_overrides./confidence.publisher.reliability': 'best_effort',
    }
    with robot_with(parameters) as robot:  # autostart is on, and fails
        robot.wait_for(lambda: 'Cannot load the model' in robot.under_test.text(), 'error', 120.0)
        assert robot.state() == 'unconfigured'
        assert not robot.transition('configure')
        log = robot.under_test.text()
        assert "no model '/no/such/model'" in log
        assert 'give a bundled name' in log
        assert "'points.strid' is ignored; the nearest known one is 'points.stride'" in log
        assert log.count('Unknown parameter') == 1
        robot.wait_for(lambda: '/no/such/model' in robot.told('model'), 'error in diagnostics')
        assert robot.statuses['model'].level == b'\2'

        assert robot.set_parameter('model', str(tiny_model_dir)).successful
        assert robot.transition('configure')
        assert robot.state() == 'inactive'
        assert offered_reliability(robot, 'confidence') == ReliabilityPolicy.BEST_EFFORT
        assert offered_reliability(robot, 'points') == ReliabilityPolicy.RELIABLE
        assert robot.set_parameter('model', str(tiny_model_dir)).successful  # no change
        rejected = robot.set_parameter('model', 'other')
        assert 'cannot change while a model is loaded' in rejected.reason

        for _ in range(2):
            assert robot.transition('activate')
            robot.listen('depth/image')
            robot.answer('depth/image', robot.show(rgb))
            assert robot.transition('deactivate')
            camera = robot.camera(Image, 'image', listened=False)
            robot.wait_for(lambda c=camera: c.get_subscription_count() == 0, 'unsubscribing')
            robot.unplug()
        assert robot.transition('cleanup')
        assert robot.state() == 'unconfigured'
        robot.wait_for(lambda: 'model' not in robot.values('model'), 'diagnostics without a model')
        assert robot.set_parameter('model', str(tiny_model_dir)).successful
        assert robot.transition('configure')
        assert robot.transition('activate')
        assert robot.transition('active_shutdown')
        assert robot.state() == 'finalized'
        assert robot.under_test.stop(signal.SIGTERM) == 0
        assert 'Traceback' not in robot.under_test.text()


def offered_reliability(robot: Any, topic: str) -> ReliabilityPolicy:
    """Return what the node's publisher of an output offers."""

    def offers() -> list[Any]:
        return robot.node.get_publishers_info_by_topic(topic)

    (offer,) = robot.wait_for(offers, f'publisher of {topic}')
    return offer.qos_profile.reliability
