"""What happens around the running node: cameras and readers that fail, floods, jumps in time."""

from __future__ import annotations

import math
from pathlib import Path
import random
import signal
import subprocess
import sys
from typing import Any

import numpy as np
from ros.conftest import stamp_ns_of
from sensor_msgs.msg import Image

from llm_mde_ros.conversions import cloud_to_points, image_to_depth

READER = """
import rclpy
from sensor_msgs.msg import PointCloud2
rclpy.init()
node = rclpy.create_node('reader')
node.create_subscription(PointCloud2, 'points', lambda cloud: print('a cloud', flush=True), 10)
rclpy.spin(node)
"""
FATES = ('skipped', 'published', 'dropped', 'unwanted', 'rate limited')


def test_a_camera_that_is_gone_and_comes_back(robot: Any, rgb: np.ndarray):
    robot.listen('depth/image')
    before = robot.answer('depth/image', robot.show(rgb))
    robot.unplug()
    robot.wait_for(lambda: 'Nobody publishes /image' in robot.told('input'), 'word of it')
    assert robot.statuses['input'].level > b'\0'
    assert len(robot.received['depth/image']) == 1
    after = robot.answer('depth/image', robot.show(rgb))
    np.testing.assert_array_equal(after.data, before.data)
    robot.wait_for(lambda: robot.told('input') == 'Images arrive.', 'end of it')


def test_a_camera_that_is_silent_and_goes_on(robot: Any, rgb: np.ndarray):
    robot.listen('depth/image')
    robot.answer('depth/image', robot.show(rgb))
    robot.wait_for(lambda: 'No image on /image for' in robot.told('input'), 'word of it')
    assert robot.statuses['input'].level > b'\0'
    assert len(robot.received['depth/image']) == 1
    robot.answer('depth/image', robot.show(rgb))
    robot.wait_for(lambda: robot.told('input') == 'Images arrive.', 'end of it')


YEAR_NS = 365 * 86400 * 10**9
JUMPS_NS = {  # from the first stamp, which is 1000 s
    'a year ahead': YEAR_NS,
    'back to the start': 10**10,
    'to the end of time': 2**31 * 10**9 - 10**12 - 2 * 10**9,
    'to zero': -(10**12) - 10**8,
    'before all time': -2 * 10**12,
    'a second back': -(2 * 10**12) - 10**9,
}


def test_jumps_in_time(robot: Any, rgb: np.ndarray):
    """Smoothing begins anew, rates count from there, and every output has its image's stamp."""
    robot.listen('depth/image', 'points')
    robot.stamp_ns = first_ns = 10**12
    metres = image_to_depth(robot.answer('depth/image', robot.show(rgb)))
    other_rgb = 255 - rgb
    other_m = image_to_depth(robot.answer('depth/image', robot.show(other_rgb)))
    assert not np.allclose(metres, other_m, rtol=1e-3)
    with (
        robot.parameter('filters.temporal.enable', True, default=False),
        robot.parameter('filters.temporal.time_s', 60.0, default=0.2),
        robot.parameter('filters.temporal.max_step', 10.0, default=0.2),
        robot.parameter('max_rate_hz', 20.0, default=0.0),
        robot.parameter('points.max_rate_hz', 5.0, default=0.0),
    ):
        for jump_ns in JUMPS_NS.values():
            robot.stamp_ns = first_ns + jump_ns
            image = robot.answer('depth/image', robot.show(rgb))
            np.testing.assert_allclose(image_to_depth(image), metres, rtol=1e-4)
            image = robot.answer('depth/image', robot.show(other_rgb))
            assert not np.allclose(image_to_depth(image), other_m, rtol=1e-3)
            due_ns = [robot.stamp_ns - 100_000_000, robot.show(rgb)]  # every second one
            robot.answer('points', due_ns[1])
            assert [stamp_ns_of(cloud) for cloud in robot.received['points'][-2:]] == due_ns
    robot.settle()
    assert robot.values('output')['age p50, p95, p99 [ms]'] == 'nan, nan, nan'  # of no clock here
    robot.stamp_ns = first_ns + 2 * 10**10
    robot.answer('depth/image', robot.show(rgb))


def test_a_stamp_that_is_no_time(robot: Any, rgb: np.ndarray):
    robot.listen('depth/image', 'points')
    robot.show(rgb)
    for _ in range(2):
        image = robot.image(rgb)
        image.header.stamp.nanosec = 2**32 - 1  # a second has fewer
        robot.camera(Image, 'image').publish(image)
        robot.answer('points', stamp_ns_of(image))
    robot.answer('points', robot.show(rgb))


def test_a_reader_that_hangs_and_dies(robot: Any, rgb: np.ndarray, tmp_path: Path):
    robot.listen('points')
    log = tmp_path / 'reader.log'
    with log.open('w') as stream:
        reader = subprocess.Popen([sys.executable, '-c', READER], stdout=stream)
    try:
        while 'a cloud' not in log.read_text():
            robot.answer('points', robot.show(rgb))
        for number in (signal.SIGSTOP, signal.SIGKILL):
            reader.send_signal(number)
            for _ in range(15):  # more than its queue holds
                robot.answer('points', robot.show(rgb))
    finally:
        reader.kill()
        reader.wait()


def settled(robot: Any) -> dict[str, int]:
    """Return the counters of a report in which the fate of every image is known."""

    def counts() -> dict[str, int] | None:
        received = robot.count('received')
        values = robot.values('input') | robot.values('output')
        known = {fate: int(values[fate]) for fate in FATES}
        return known if sum(known.values()) == received else None

    return robot.wait_for(counts, 'report that knows the fate of every image')


def test_a_flood_of_images(robot: Any, rgb: np.ndarray):
    robot.listen('depth/image')
    robot.answer('depth/image', robot.show(rgb))
    before = settled(robot)
    camera, sent = robot.camera(Image, 'image'), []
    for _ in range(300):
        camera.publish(image := robot.image(rgb))
        sent.append(stamp_ns_of(image))
    assert robot.set_parameter('points.stride', 2).successful  # it answers
    robot.wait_for(lambda: 'Overload' in robot.told('output'), 'word of it')
    robot.answer('depth/image', sent[-1])
    new = {fate: count - before[fate] for fate, count in settled(robot).items()}
    assert new['skipped'] > new['published'] > 0
    assert new['dropped'] == new['unwanted'] == 0
    answered = [stamp_ns_of(message) for message in robot.received['depth/image'][1:]]
    assert answered == sorted(set(answered))  # each once, in order
    assert set(answered) <= set(sent)
    robot.answer('depth/image', robot.show(rgb))


CHANGES = {  # values that are set while images fly, the default first
    'points.stride': (2, 1, 3, 7),
    'points.organized': (True, False),
    'points.color': (True, False),
    'points.min_confidence': (0.0, 0.3),
    'depth.encoding': ('32FC1', '16UC1'),
    'depth.max_m': (20.0, 2.0),
    'filters.temporal.enable': (False, True),
    'filters.median.enable': (False, True),
    'filters.edge.enable': (False, True),
    'diagnostics_period_s': (0.1, 0.2),
    'max_rate_hz': (0.0, 5.0),
    'image_reliability': ('auto', 'best_effort'),
}
WRONG = {
    'points.stride': 0,
    'points.organized': 1,
    'depth.encoding': 'rgb8',
    'depth.max_m': math.nan,
    'hfov_deg': math.inf,
    'depth.min_m': 30.0,
}


def test_parameters_are_set_while_images_fly(robot: Any, rgb: np.ndarray):
    robot.listen('depth/image', 'points')
    expected = robot.answer('depth/image', robot.show(rgb))
    before, dice = settled(robot), random.Random(0)
    camera = robot.camera(Image, 'image')
    for count in range(600):
        if count >= 60 and is_enough(robot.received['depth/image']):  # a fast robot sends more
            break
        camera.publish(robot.image(rgb))
        name = dice.choice(list(CHANGES))
        assert robot.set_parameter(name, dice.choice(CHANGES[name])).successful
        camera.publish(robot.image(rgb))
        name = dice.choice(list(WRONG))
        assert not robot.set_parameter(name, WRONG[name]).successful
    for name, values in CHANGES.items():
        assert robot.set_parameter(name, values[0]).successful
    robot.settle()
    assert settled(robot)['dropped'] == before['dropped']
    check_all(robot)
    robot.listen('depth/image')  # forgets what has come
    assert robot.answer_eventually('depth/image', rgb).data == expected.data


def is_enough(depths: list[Image]) -> bool:
    """Tell whether the changes show."""
    return len(depths) > 10 and {image.encoding for image in depths} == {'32FC1', '16UC1'}


def check_all(robot: Any) -> None:
    """Each message was made with one of the values, not with a mixture of two."""
    depths, clouds = robot.received['depth/image'], robot.received['points']
    assert is_enough(depths)
    for image in depths:
        assert (image.encoding, image.step) in (('32FC1', 4 * 64), ('16UC1', 2 * 64))
        known_m = image_to_depth(image)
        assert known_m.shape == (48, 64)
        assert np.nanmax(known_m) <= 20.0
    sizes = {(-(-48 // n), -(-64 // n)) for n in CHANGES['points.stride']}
    for cloud in clouds:
        assert cloud.height == 1 or (cloud.height, cloud.width) in sizes
        points, _ = cloud_to_points(cloud)
        assert points.shape == (cloud.height, cloud.width, 3)
