"""Start, lifecycle and end of the node's process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import signal
from typing import Any

import numpy as np
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import Image


def test_a_missing_model_is_told_and_mended_then_every_transition_works(
    robot_with: Any, tiny_model_dir: Path, rgb: np.ndarray
):
    parameters = {'model': '/no/such/model', 'device': 'cpu', 'points.strid': 3}
    with robot_with(parameters) as robot:  # autostart is on, and fails
        robot.wait_for(lambda: 'Cannot load the model' in robot.under_test.text(), 'error', 120.0)
        assert robot.state() == 'unconfigured'
        assert not robot.transition('configure')
        log = robot.under_test.text()
        assert "no model '/no/such/model'" in log
        assert 'give a bundled name' in log
        assert "'points.strid' is ignored; the nearest known one is 'points.stride'" in log
        robot.wait_for(lambda: '/no/such/model' in robot.told('model'), 'error in diagnostics')
        assert robot.statuses['model'].level == b'\2'

        assert robot.set_parameter('model', str(tiny_model_dir)).successful
        assert robot.transition('configure')
        assert robot.state() == 'inactive'
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
        robot.wait_for(lambda: robot.values('model') == {}, 'diagnostics without a model')
        assert robot.set_parameter('model', str(tiny_model_dir)).successful
        assert robot.transition('configure')
        assert robot.transition('activate')
        assert robot.transition('active_shutdown')
        assert robot.state() == 'finalized'
        assert robot.under_test.stop(signal.SIGTERM) == 0
        assert 'Traceback' not in robot.under_test.text()


def test_without_autostart_it_waits_and_sigint_while_images_fly_ends_it_cleanly(
    robot_with: Any, tiny_model_dir: Path, rgb: np.ndarray
):
    parameters = {
        'model': tiny_model_dir,
        'device': 'cpu',
        'max_rate_hz': 10,  # a whole number for a float
        'autostart': False,
        'qos_overrides./confidence.publisher.reliability': 'best_effort',
    }
    with robot_with(parameters) as robot:
        assert robot.state() == 'unconfigured'
        assert robot.transition('configure')
        assert robot.transition('activate')
        for topic, reliability in (
            ('confidence', ReliabilityPolicy.BEST_EFFORT),
            ('points', ReliabilityPolicy.RELIABLE),
        ):
            (offer,) = robot.node.get_publishers_info_by_topic(topic)
            assert offer.qos_profile.reliability == reliability
        assert 'Unknown parameter' not in robot.under_test.text()
        robot.listen('depth/image', 'points')
        for _ in range(5):
            robot.show(rgb)
        assert robot.under_test.stop(signal.SIGINT) == 0
        assert 'Traceback' not in robot.under_test.text()


def test_a_bad_parameter_at_the_start_ends_the_process_with_a_sentence(
    start_node: Callable[..., Any],
):
    node = start_node({'hfov_deg': 'wide'})
    assert node.process.wait(120) == 1
    assert node.text().strip() == "depth_node: hfov_deg must be a float, not 'wide'."
