"""The active node as a process: images in over DDS, outputs back, parameters changed between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
import signal
from typing import Any

import cv2
import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros.conftest import calibration, stamp_ns_of
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from llm_mde_ros.conversions import image_to_depth
from llm_mde_ros.frame_times import STAGES
from llm_mde_ros.parameters import SPECS
from llm_mde_ros.stats import DepthStats

ALL_OUTPUTS = (
    'depth/image',
    'depth/camera_info',
    'depth/preview',
    'confidence',
    'points',
    *(['stats'] if DepthStats else []),
)


@pytest.fixture(scope='module')
def robot(robot_with: Any, tiny_model_dir: Path) -> Iterator[Any]:
    parameters = {
        'model': tiny_model_dir,
        'device': 'cpu',
        'autostart': False,
        'max_rate_hz': 0,  # a whole number for a float
        'camera_info_timeout_s': 0.3,
        'output_depth': 10,  # nothing that is published gets lost
    }
    with robot_with(parameters) as robot:
        assert robot.state() == 'unconfigured'  # it waits
        assert robot.transition('configure')
        assert robot.transition('activate')
        yield robot
        end_while_images_fly(robot)


def end_while_images_fly(robot: Any) -> None:
    robot.unplug()
    robot.listen('depth/image', 'points')
    for _ in range(5):
        robot.show(np.zeros((48, 64, 3), np.uint8))
    assert robot.under_test.stop(signal.SIGINT) == 0
    assert 'Traceback' not in robot.under_test.text()


@pytest.fixture
def big_rgb(rgb: np.ndarray) -> np.ndarray:
    return cv2.resize(rgb, (640, 480))


def test_an_image_gives_every_output_with_its_stamp_and_frame(robot: Any, rgb: np.ndarray):
    robot.listen(*ALL_OUTPUTS)
    stamp_ns = robot.show(rgb)
    answers = {topic: robot.answer(topic, stamp_ns) for topic in ALL_OUTPUTS}
    assert {a.header.frame_id for a in answers.values()} == {'test_camera_optical_frame'}
    height, width = rgb.shape[:2]
    depth = answers['depth/image']
    assert (depth.encoding, depth.height, depth.width) == ('32FC1', height, width)
    assert np.nanmin(image_to_depth(depth)) > 0
    info = answers['depth/camera_info']
    assert (info.height, info.width, info.k[0]) == (height, width, 60.0)
    cloud = answers['points']
    assert (cloud.height, cloud.width, cloud.is_dense) == (height // 2, width // 2, False)
    assert answers['depth/preview'].encoding in ('rgb8', 'bgr8')


def test_one_output_per_image_at_a_rate_that_the_machine_can_hold(robot: Any, rgb: np.ndarray):
    robot.listen('depth/image')
    skipped, dropped = robot.count('skipped'), robot.count('dropped')
    stamps_ns = []
    for _ in range(25):
        stamps_ns.append(robot.show(rgb))
        robot.answer('depth/image', stamps_ns[-1])
    assert [stamp_ns_of(message) for message in robot.received['depth/image']] == stamps_ns
    assert (robot.count('skipped'), robot.count('dropped')) == (skipped, dropped)


@pytest.mark.skipif(DepthStats is None, reason='llm_mde_msgs is not installed')
def test_stats_tell_the_stages_and_the_prompt(robot: Any, rgb: np.ndarray):
    robot.listen('stats')
    stats = robot.answer('stats', robot.show(rgb))
    stages_s = [getattr(stats, f'{stage}_s') for stage in STAGES]
    assert min(stages_s) > 0
    assert max(stages_s) < sum(stages_s) < 1.001 * stats.latency_s
    assert stats.depth_min_m <= stats.depth_median_m <= stats.depth_max_m
    assert 0 < stats.valid_fraction <= 1
    assert stats.depth_class in stats.prompt
    assert stats.frames_received >= stats.frames_published > 0
    assert (stats.model, stats.adapter) == (robot.values('model')['model'], '')
    assert stats.calibrated
    assert np.isnan([stats.reference_abs_rel, stats.reference_bias]).all()
    correction = stats.corrected, stats.correction_scale, stats.correction_shift_m
    assert correction == (False, 1.0, 0.0)


@pytest.mark.skipif(DepthStats is None, reason='llm_mde_msgs is not installed')
def test_stats_are_those_of_the_depth_that_is_published(robot: Any, rgb: np.ndarray):
    robot.listen('stats', 'depth/image')
    limit_m = robot.answer('stats', robot.show(rgb)).depth_median_m
    with robot.parameter('depth.max_m', limit_m, default=20.0):
        stamp_ns = robot.show(rgb)
        stats = robot.answer('stats', stamp_ns)
        depth_m = image_to_depth(robot.answer('depth/image', stamp_ns))
    assert 0.4 < stats.valid_fraction < 0.6
    assert stats.valid_fraction == pytest.approx(np.isfinite(depth_m).mean())
    assert stats.depth_max_m == np.nanmax(depth_m) <= limit_m


def published_counts(robot: Any) -> dict[str, int]:
    """Return the number of messages of each output in a report that is made from now on."""
    robot.count('published', 'output')
    values = robot.values('output')
    return {topic: int(values.get(f'published: {topic}', 0)) for topic in ALL_OUTPUTS}


@pytest.mark.parametrize('topic', ALL_OUTPUTS)
def test_only_what_somebody_listens_to_is_made(robot: Any, rgb: np.ndarray, topic: str):
    robot.listen(topic)
    before = published_counts(robot)
    robot.answer(topic, robot.show(rgb))
    robot.wait_for(  # it is counted after it is sent
        lambda: published_counts(robot)[topic] > before[topic], 'count'
    )
    after = published_counts(robot)
    assert {t for t in ALL_OUTPUTS if after[t] != before[t]} == {topic}


def test_without_listeners_no_image_is_taken(robot: Any, rgb: np.ndarray):
    robot.listen('points')
    robot.answer('points', robot.show(rgb))
    robot.listen()
    camera = robot.camera(Image, 'image', listened=False)
    robot.wait_for(lambda: camera.get_subscription_count() == 0, 'unsubscribing')
    received = robot.count('received')
    camera.publish(robot.image(rgb))
    assert robot.count('received') == received
    assert robot.statuses['input'].message == 'Idle: nobody subscribes to an output.'


def test_bad_images_are_dropped_and_counted_and_the_next_good_one_is_used(
    robot: Any, rgb: np.ndarray
):
    robot.listen('depth/image')
    robot.answer('depth/image', robot.show(rgb))
    bad = [robot.image(rgb) for _ in range(4)]
    bad[0].encoding = 'rgb9'
    bad[1].data = bad[1].data[:100]
    bad[2].step = 7
    bad[3].width = bad[3].height = 0
    camera = robot.camera(Image, 'image')
    for message in bad:
        dropped = robot.count('dropped: image')
        camera.publish(message)
        robot.wait_for(lambda n=dropped: robot.count('dropped: image') == n + 1, 'drop')
    assert 'Image dropped (image)' in robot.under_test.text()
    good = robot.answer('depth/image', robot.show(rgb))
    assert good.width == rgb.shape[1]
    assert len(robot.received['depth/image']) == 2


def test_camera_info_of_another_size_drops_the_image_and_names_both_sizes(
    robot: Any, rgb: np.ndarray
):
    robot.listen('depth/image')
    robot.answer('depth/image', robot.show(rgb))
    dropped = robot.count('dropped: camera_info')
    robot.calibrate(width=320, height=240, fx=300.0)
    robot.show(rgb, fx=None)
    robot.wait_for(lambda: robot.count('dropped: camera_info') == dropped + 1, 'drop')
    assert '320x240' in robot.under_test.text()
    assert '64x48' in robot.under_test.text()
    robot.answer('depth/image', robot.show(rgb))


def test_a_changed_camera_info_acts_on_the_next_image(robot: Any, rgb: np.ndarray):
    robot.listen('depth/image', 'depth/camera_info')
    depths = []
    for fx in (60.0, 30.0):  # not above that of the network's input: the image would be resized
        stamp_ns = robot.show(rgb, fx=fx)
        assert robot.answer('depth/camera_info', stamp_ns).k[0] == fx
        depths.append(np.nanmedian(image_to_depth(robot.answer('depth/image', stamp_ns))))
    assert depths[1] / depths[0] == pytest.approx(0.5, rel=0.01)  # a wider lens: nearer


def test_an_image_has_the_camera_info_of_its_time_unless_time_jumps_back(
    robot: Any, rgb: np.ndarray
):
    robot.listen('depth/camera_info')
    robot.camera(Image, 'image')
    for fx in (60.0, 30.0):
        robot.tell(robot.stamp(calibration(width=64, height=48, fx=fx)))
    robot.stamp_ns -= 150_000_000
    jumps = robot.count('time jumps')
    between_ns = robot.show(rgb, fx=None)
    assert robot.answer('depth/camera_info', between_ns).k[0] == 60.0
    assert robot.count('time jumps') == jumps
    robot.stamp_ns = between_ns - 110_000_000
    assert robot.answer('depth/camera_info', robot.show(rgb, fx=None)).k[0] == 30.0
    assert robot.count('time jumps') == jumps + 1


def test_an_image_of_another_size_with_its_camera_info_is_used(
    robot: Any, rgb: np.ndarray, big_rgb: np.ndarray
):
    robot.listen('depth/camera_info')
    for image in (rgb, big_rgb, rgb):
        info = robot.answer('depth/camera_info', robot.show(image))
        assert (info.height, info.width) == image.shape[:2]
        assert info.k[2] == (info.width - 1) / 2


def test_stride_and_encoding_act_at_run_time(robot: Any, rgb: np.ndarray):
    robot.listen('points', 'depth/image')
    metres = image_to_depth(robot.answer('depth/image', robot.show(rgb)))
    with robot.parameter('points.stride', 4, default=2):
        cloud = robot.answer('points', robot.show(rgb))
    assert (cloud.height, cloud.width) == (12, 16)
    with robot.parameter('depth.encoding', '16UC1', default='32FC1'):
        image = robot.answer('depth/image', robot.show(rgb))
    assert image.encoding == '16UC1'
    np.testing.assert_allclose(image_to_depth(image), metres, atol=0.001)
    with robot.parameter('depth.max_m', float(np.nanmedian(metres)), default=20.0):
        capped = image_to_depth(robot.answer('depth/image', robot.show(rgb)))
    assert 0.3 < np.isnan(capped).mean() < 0.7


@pytest.mark.parametrize(
    ('topic', 'name', 'value'),
    [
        ('depth/image', 'depth.min_m', 19.9),
        ('depth/preview', 'preview.min_m', 7.9),
        ('depth/preview', 'preview.max_m', 0.4),
        ('depth/preview', 'preview.colormap', 'magma'),
        ('points', 'points.color', False),
        ('points', 'points.organized', False),
        ('points', 'points.min_range_m', 19.9),
        ('points', 'points.max_range_m', 0.2),
        ('points', 'points.min_confidence', 1.0),
    ],
)
def test_no_parameter_is_accepted_and_does_nothing(
    robot: Any, rgb: np.ndarray, topic: str, name: str, value: Any
):
    robot.listen(topic)
    usual = robot.answer(topic, robot.show(rgb))
    with robot.parameter(name, value, default=SPECS[name].default):
        changed = robot.answer(topic, robot.show(rgb))
    again = robot.answer(topic, robot.show(rgb))
    changed.header = again.header = usual.header
    assert changed != usual
    assert again == usual


@pytest.mark.parametrize(
    ('limit', 'value', 'switch'),
    [
        ('points.min_range_m', 19.9, 'points.range.enable'),
        ('points.min_confidence', 1.0, 'points.confidence.enable'),
    ],
)
def test_a_filter_of_the_cloud_is_switched_off_and_keeps_its_limit(
    robot: Any, rgb: np.ndarray, limit: str, value: float, switch: str
):
    robot.listen('points')
    usual = robot.answer('points', robot.show(rgb))
    with (
        robot.parameter(limit, value, default=SPECS[limit].default),
        robot.parameter(switch, False, default=True),
    ):
        off = robot.answer('points', robot.show(rgb))
    off.header = usual.header
    assert off == usual


@pytest.mark.parametrize(
    ('name', 'value', 'reason'),
    [
        ('points.stride', 0, 'range'),
        ('points.stride', 2.5, 'type'),
        ('depth.encoding', 'mono8', '32FC1'),
        ('depth.min_m', 30.0, 'depth.max_m'),
        ('preview.max_m', 0.1, 'preview.min_m'),
        ('hfov_deg', float('nan'), ''),
        ('model', 'other', 'clean up'),
        ('autostart', False, 'read-only'),
        ('allow_download', True, 'read-only'),
    ],
)
def test_a_bad_parameter_is_rejected_with_a_reason(robot: Any, name: str, value: Any, reason: str):
    result = robot.set_parameter(name, value)
    assert not result.successful
    assert reason in result.reason


def settled_counts(robot: Any) -> Counter[str]:
    """Return the counters of a report in which the fate of every image is known."""
    fates = ('skipped', 'published', 'dropped', 'unwanted', 'rate limited')

    def counts() -> Counter[str] | None:
        received = robot.count('received')
        values = robot.values('input') | robot.values('output')
        known = Counter({fate: int(values[fate]) for fate in fates})
        return known if known.total() == received else None

    # A frame counts as published only after the cloud has left, so a report may come before.
    return robot.wait_for(counts, 'report that knows the fate of every image')


def test_the_newest_image_wins_and_the_others_count_as_skipped(robot: Any, big_rgb: np.ndarray):
    robot.listen('points')
    robot.answer('points', robot.show(big_rgb))
    before = settled_counts(robot)
    camera = robot.camera(Image, 'image')
    burst = [robot.image(big_rgb) for _ in range(8)]
    for message in burst:
        camera.publish(message)
    robot.answer('points', robot.stamp_ns)
    new = settled_counts(robot) - before
    assert set(new) == {'skipped', 'published'}
    assert new.total() <= len(burst)
    assert len(robot.received['points']) == 1 + new['published']


def test_rates_are_limited_by_stamp_and_a_jump_back_starts_anew(robot: Any, rgb: np.ndarray):
    robot.listen('depth/image', 'points')
    robot.answer('points', robot.show(rgb))
    with robot.parameter('points.max_rate_hz', 5.0, default=0.0):
        before = len(robot.received['points'])
        for _ in range(4):  # stamped at 10 Hz
            robot.answer('depth/image', robot.show(rgb))
        robot.answer('points', robot.stamp_ns)  # 0.4 s after the first cloud, one at 0.2 s
        assert len(robot.received['points']) == before + 2
    with robot.parameter('max_rate_hz', 0.01, default=0.0):
        limited = robot.count('rate limited')
        robot.show(rgb)
        robot.wait_for(lambda: robot.count('rate limited') == limited + 1, 'limit')
        jumps = robot.count('time jumps')
        robot.stamp_ns -= 10**12 // 2
        robot.answer('depth/image', robot.show(rgb))
        assert robot.count('time jumps') == jumps + 1


def test_images_whose_stamps_stand_still_are_not_held_back(robot: Any, rgb: np.ndarray):
    robot.listen('depth/image')
    robot.answer('depth/image', robot.show(rgb))
    with robot.parameter('max_rate_hz', 0.01, default=0.0):
        for shown in range(2, 6):
            robot.stamp_ns -= 100_000_000
            robot.show(rgb)
            robot.wait_for(lambda n=shown: len(robot.received['depth/image']) == n, 'depth')
    robot.wait_for(lambda: 'stamps of /image stand still' in robot.told('input'), 'warning')
    robot.answer('depth/image', robot.show(rgb))
    robot.wait_for(lambda: robot.told('input') == 'Images arrive.', 'end of it')


def test_compressed_images(robot: Any, rgb: np.ndarray):
    robot.listen('depth/image')
    with robot.parameter('image_transport', 'compressed', default='raw'):
        camera = robot.camera(CompressedImage, 'image/compressed')
        robot.calibrate(width=64, height=48, fx=60.0)
        for extension in ('.jpg', '.png'):
            data = cv2.imencode(extension, rgb)[1].tobytes()
            message = robot.stamp(CompressedImage(format=extension[1:], data=data))
            camera.publish(message)
            assert robot.answer('depth/image', robot.stamp_ns).width == 64
        dropped = robot.count('dropped: image')
        camera.publish(robot.stamp(CompressedImage(format='jpeg', data=b'no image')))
        robot.wait_for(lambda: robot.count('dropped: image') == dropped + 1, 'drop')


def readers_of_image_are(robot: Any, reliability: str) -> bool:
    readers = robot.node.get_subscriptions_info_by_topic('image')
    return [r.qos_profile.reliability for r in readers] == [ReliabilityPolicy[reliability.upper()]]


@pytest.mark.parametrize('reliability', ['best_effort', 'reliable'])
def test_the_subscription_takes_the_reliability_of_the_camera(
    robot: Any, rgb: np.ndarray, reliability: str
):
    robot.listen('depth/image')
    robot.unplug()
    robot.camera(Image, 'image', qos=reliability)
    robot.wait_for(lambda: readers_of_image_are(robot, reliability), f'{reliability} reader')
    robot.answer('depth/image', robot.show(rgb, qos=reliability))
    robot.unplug()


def test_the_reliability_of_the_subscription_changes_at_run_time(robot: Any, rgb: np.ndarray):
    robot.listen('depth/image')
    robot.camera(Image, 'image', qos='reliable')
    with robot.parameter('image_reliability', 'best_effort', default='auto'):
        robot.wait_for(lambda: readers_of_image_are(robot, 'best_effort'), 'best-effort reader')
        robot.answer_eventually('depth/image', rgb)
    robot.wait_for(lambda: readers_of_image_are(robot, 'reliable'), 'reliable reader')
    robot.unplug()


def test_a_camera_that_the_node_cannot_hear_is_named_with_what_to_do(robot: Any, rgb: np.ndarray):
    robot.unplug()
    robot.listen('depth/image')
    with robot.parameter('image_reliability', 'reliable', default='auto'):
        robot.camera(Image, 'image', qos='best_effort', listened=False)
        robot.wait_for(
            lambda: '/robot offers /image best effort only' in robot.told('input'), 'sentence'
        )
    robot.answer('depth/image', robot.show(rgb, qos='best_effort'))
    robot.wait_for(lambda: 'best effort' not in robot.told('input'), 'end of it')
    robot.unplug()
    robot.camera(CompressedImage, 'image', listened=False)
    robot.wait_for(lambda: 'expected sensor_msgs/msg/Image' in robot.told('input'), 'sentence')
    assert 'image_transport' in robot.told('input')
    robot.unplug()
    robot.camera(CompressedImage, 'camera_info', listened=False)
    robot.answer('depth/image', robot.show(rgb, fx=None))
    expected = 'expected sensor_msgs/msg/CameraInfo: remap camera_info.'
    robot.wait_for(lambda: robot.told('input').endswith(expected), 'sentence')
    robot.unplug()


def test_a_listener_that_gets_nothing_is_named_with_what_to_do(robot: Any):
    robot.listen()
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    listener = robot.node.create_subscription(PointCloud2, 'points', print, latched)
    sentence = '/robot asks for /points transient local and gets nothing: subscribe volatile.'
    robot.wait_for(lambda: robot.told('output') == sentence, 'sentence')
    assert robot.values('output')['subscribers: points'] == '0'
    robot.node.destroy_subscription(listener)
    robot.wait_for(lambda: robot.told('output').startswith('Nobody listens'), 'end of it')


def test_a_rectified_image_beside_a_camera_info_with_distortion(robot: Any, rgb: np.ndarray):
    robot.listen('depth/camera_info')
    robot.answer('depth/camera_info', robot.show(rgb))  # the reader of camera_info is there
    raw = CameraInfo(width=64, height=48, distortion_model='plumb_bob')
    raw.d = [-0.2, 0.1, 0.0, 0.0, 0.0]
    raw.k = [60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]
    raw.p = [50.0, 0.0, 31.5, 0.0, 0.0, 50.0, 23.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    robot.camera(CameraInfo, 'camera_info').publish(raw)
    robot.wait_for(
        lambda: any(robot.answer('depth/camera_info', robot.show(rgb, fx=None)).d), 'distortion'
    )
    with robot.parameter('image_rectified', True, default=False):
        info = robot.answer('depth/camera_info', robot.show(rgb, fx=None))
    assert (info.k[0], info.p[0], any(info.d)) == (50.0, 50.0, False)
    robot.unplug()


def test_diagnostics_carry_the_full_name_of_the_node(robot: Any):
    robot.count('received')
    assert robot.statuses['input'].name == '/depth_node: input'


def test_a_camera_info_that_is_sent_once_is_heard_later(robot: Any, rgb: np.ndarray):
    robot.listen('depth/image')
    robot.unplug()
    robot.camera(CameraInfo, 'camera_info', qos='latched')
    robot.calibrate(width=64, height=48, fx=77.0, qos='latched')
    robot.restart()
    robot.listen('depth/camera_info')
    assert robot.answer_eventually('depth/camera_info', rgb).k[0] == 77.0
    robot.unplug()


def test_without_camera_info_the_field_of_view_is_used_with_a_warning(robot: Any, rgb: np.ndarray):
    robot.unplug()
    robot.restart()  # forgets the camera_info
    robot.listen('depth/camera_info', *(['stats'] if DepthStats else []))
    dropped = robot.count('dropped: camera_info')
    robot.show(rgb, fx=None)
    robot.wait_for(lambda: robot.count('dropped: camera_info') == dropped + 1, 'waiting')
    expected_fx = 64 / 2 / np.tan(np.radians(30))
    info = robot.answer_eventually('depth/camera_info', rgb)
    assert info.k[0] == pytest.approx(expected_fx)
    assert 'hfov_deg' in robot.under_test.text()
    if DepthStats:
        stats = robot.wait_for(lambda: robot.received['stats'], 'stats')
        assert not stats[-1].calibrated
    robot.wait_for(lambda: 'field of view of 60 degrees' in robot.told('input'), 'warning')
    with robot.parameter('hfov_deg', 90.0, default=60.0):
        robot.listen('depth/camera_info')
        wider = robot.answer('depth/camera_info', robot.show(rgb, fx=None))
    assert wider.k[0] == pytest.approx(32.0)
    robot.answer('depth/camera_info', robot.show(rgb, fx=60.0))  # one comes late
    robot.count('received')
    assert robot.values('input')['camera'] == 'from camera_info'
