"""The running node beside a laser scanner: figures in the diagnostics, and corrected depth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sensor_msgs.msg import LaserScan

from llm_mde_ros.conversions import image_to_depth
from llm_mde_ros.stats import DepthStats


@pytest.fixture(scope='module')
def robot(robot_with: Any, tiny_model_dir: Path) -> Iterator[Any]:
    parameters = {'model': tiny_model_dir, 'device': 'cpu', 'reference.topic': 'scan'}
    with robot_with(parameters) as robot:
        robot.wait_for(lambda: robot.state() == 'active', 'active node', timeout_s=120.0)
        yield robot


def scan_of_wall(distance_m: float) -> LaserScan:
    angles = np.linspace(-1, 1, 401)
    scan = LaserScan(angle_min=-1.0, angle_increment=0.005, range_max=30.0)
    scan.ranges = (distance_m / np.cos(angles)).astype(np.float32).tolist()
    return scan


def show_with_scan(robot: Any, rgb: np.ndarray, distance_m: float) -> np.ndarray:
    """Return the published depth of an image that comes just after a scan."""
    scans = robot.camera(LaserScan, 'scan')
    scan = robot.stamp(scan_of_wall(distance_m))
    scan.header.frame_id = 'laser'
    robot.stamp_ns -= 90_000_000  # the image is 10 ms later
    scans.publish(scan)
    for _ in range(2):
        robot.count('received')
    return image_to_depth(robot.answer('depth/image', robot.show(rgb)))


def test_the_missing_transform_is_told_and_then_given(robot: Any, rgb: np.ndarray):
    robot.listen('depth/image')
    robot.show(rgb)
    show_with_scan(robot, rgb, 2.0)
    robot.wait_for(lambda: "'laser' stands" in robot.told('accuracy'), 'sentence')
    result = robot.set_parameter('reference.extrinsics', '0 0.1')
    assert 'expected six numbers' in result.reason
    assert robot.set_parameter('reference.extrinsics', '0 0.1 0 0 0 0').successful
    depth_m = show_with_scan(robot, rgb, 2.0)
    values = robot.wait_for(
        lambda: v if (v := robot.values('accuracy')).get('frames') == '1' else None, 'figures'
    )
    seen_m = depth_m[[23, 24], :]  # the scan is at the camera's height, between two rows
    expected = [float(np.mean(abs(row / 2.0 - 1))) for row in seen_m]
    assert min(expected) - 1e-3 <= float(values['AbsRel']) <= max(expected) + 1e-3
    assert values['correction'] == 'none'
    assert values['reference after image [ms]'] == '-10.0'


def test_depth_is_corrected_when_asked(robot: Any, rgb: np.ndarray):
    robot.listen('depth/image', *(['stats'] if DepthStats else []))
    before_m = show_with_scan(robot, rgb, 2.0)
    assert robot.set_parameter('reference.correct', True).successful
    far_m = 2 * float(np.median(before_m))
    for _ in range(3):
        depth_m = show_with_scan(robot, rgb, far_m)
    ratio = depth_m / before_m
    assert 1.0 < np.nanmedian(ratio) < 1.1
    if DepthStats:
        stats = robot.answer('stats', robot.stamp_ns)
        assert stats.corrected
        told_m = stats.correction_scale * before_m + stats.correction_shift_m
        np.testing.assert_allclose(depth_m, told_m, rtol=1e-4)
        assert stats.reference_abs_rel == pytest.approx(1 - np.exp(stats.reference_bias), abs=0.1)
    robot.wait_for(lambda: 'depth x 1.0' in robot.values('accuracy')['correction'], 'word of it')
    assert robot.set_parameter('reference.correct', False).successful
    np.testing.assert_allclose(show_with_scan(robot, rgb, far_m), before_m, rtol=1e-5)
