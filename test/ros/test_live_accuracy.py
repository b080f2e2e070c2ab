import math

from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, LaserScan
from std_msgs.msg import Header
import torch

from llm_mde_core.geometry import Camera, back_project
from llm_mde_ros.accuracy_figures import FRAMES, AccuracyWindow
from llm_mde_ros.conversions import camera_to_info, depth_to_image, empty_cloud, packed_points
from llm_mde_ros.extrinsics import FrameTransforms
from llm_mde_ros.live_accuracy import LiveAccuracy
from llm_mde_ros.reference_settings import ReferenceSettings

CAMERA = Camera(width=64, height=48, fx=60.0, fy=60.0, cx=31.5, cy=23.5)
LEFT = ReferenceSettings(reference_topic='/scan', reference_extrinsics='0 0.3 0.15 0 0 0')
HOLD = ReferenceSettings(
    reference_topic='/scan', reference_extrinsics='0 0.3 0.15 0 0 0', reference_correct=True
)


def header_at(stamp_s, frame_id='camera_optical'):
    header = Header(frame_id=frame_id)
    header.stamp.sec = math.floor(stamp_s)
    header.stamp.nanosec = round((stamp_s - header.stamp.sec) * 1e9)
    return header


def scan_of_wall(distance_m, stamp_s=100.0):
    """Return a scan of a wall ahead, by a laser that looks ahead."""
    angles = np.linspace(-1, 1, 401)
    return LaserScan(
        header=header_at(stamp_s, 'laser'),
        angle_min=-1.0,
        angle_increment=0.005,
        range_min=0.05,
        range_max=30.0,
        ranges=(distance_m / np.cos(angles)).astype(np.float32).tolist(),
    )


def wall(distance_m):
    return torch.full((48, 64), distance_m)


@pytest.fixture
def accuracy():
    return LiveAccuracy(FrameTransforms(None))  # no test here asks /tf


def correct(accuracy, depth, settings, *, stamp_s=1e6, camera=CAMERA, **header):
    """Return the depth with what is held, at a time after all others."""
    header = header_at(stamp_s, **header)
    return accuracy.correct(depth, camera=camera, header=header, settings=settings)


def process(
    accuracy, depth, settings=LEFT, *, stamp_s=100.0, camera=CAMERA, max_m=math.inf, **header
):
    """Return the depth that the node would publish of a frame."""
    corrected = correct(accuracy, depth, settings, stamp_s=stamp_s, camera=camera, **header)
    accuracy.compare(
        depth,
        published=torch.where(corrected <= max_m, corrected, math.nan),
        camera=camera,
        header=header_at(stamp_s, **header),
        settings=settings,
        limits_m=(0.1, 20.0),
    )
    return corrected


def test_a_wall_that_is_a_tenth_too_far(accuracy):
    accuracy.add(scan_of_wall(2.0))
    depth = wall(2.2)
    assert process(accuracy, depth) is depth
    figures = accuracy.figures()
    assert figures.abs_rel == pytest.approx(0.1, rel=1e-4)
    assert figures.bias == pytest.approx(math.log(1.1), rel=1e-4)
    assert figures.delta1 == 1.0
    assert figures.frames == 1
    assert figures.samples == 64  # each column once
    level, sentence = accuracy.verdict()
    assert level == DiagnosticStatus.OK
    assert '10% too far' in sentence


def test_the_sensor_moves_what_it_sees(accuracy):
    # a laser half a metre ahead sees the wall 2 m from the camera in 1.5 m
    settings = ReferenceSettings(reference_topic='/scan', reference_extrinsics='0.5 0 0 0 0 0')
    accuracy.add(scan_of_wall(1.5))
    process(accuracy, wall(2.0), settings)
    assert accuracy.figures().abs_rel == pytest.approx(0, abs=1e-5)


def test_only_the_pixels_that_the_sensor_saw_are_compared(accuracy):
    depth = wall(9.0)
    depth[19] = 2.0  # 15 cm above, 2 m ahead: 4.5 pixels above the middle
    accuracy.add(scan_of_wall(2.0))
    process(accuracy, depth)
    assert accuracy.figures().abs_rel == pytest.approx(0, abs=1e-5)


def test_a_third_beyond_the_factor_and_both_signs(accuracy):
    depth = wall(2.0)
    depth[:, 44:] = 2.6
    accuracy.add(scan_of_wall(2.0))
    process(accuracy, depth)
    figures = accuracy.figures()
    assert figures.delta1 == pytest.approx(44 / 64)
    assert figures.abs_rel == pytest.approx(0.3 * 20 / 64, rel=1e-4)
    assert figures.bias == pytest.approx(0, abs=1e-5)


def test_unknown_depth_is_not_compared(accuracy):
    depth = wall(2.2)
    depth[:, ::2] = math.nan
    accuracy.add(scan_of_wall(2.0))
    process(accuracy, depth)
    assert accuracy.figures().samples == 32
    assert accuracy.figures().abs_rel == pytest.approx(0.1, rel=1e-4)


def test_a_correction_also_learns_where_depth_is_too_far_to_be_published(accuracy):
    for stamp_s in np.arange(100.0, 160.0):
        accuracy.add(scan_of_wall(1.8, stamp_s))
        process(accuracy, wall(2.16), HOLD, stamp_s=stamp_s, max_m=2.0)
        if stamp_s == 100.0:
            assert 'within depth.min_m and depth.max_m' in accuracy.verdict()[1]
            assert accuracy.figures().samples == 0
    assert accuracy.correction.scale == pytest.approx(1.8 / 2.16, rel=0.01)
    assert accuracy.figures().abs_rel < 0.05  # of what is published by now


def test_reference_beyond_the_limits_of_depth_is_not_compared(accuracy):
    accuracy.add(scan_of_wall(25.0))
    process(accuracy, wall(20.0))
    assert accuracy.figures().samples == 0


def test_a_lidar_cloud_is_compared(accuracy):
    x, y = np.meshgrid(np.linspace(-1, 1, 30), np.linspace(-1, 1, 30))
    cloud = empty_cloud(1, 900, header_at(100.0, 'lidar'), color=False)
    packed_points(cloud)[0] = np.stack([0 * x + 4.0, x, y], axis=-1).reshape(-1, 3)
    accuracy.add(cloud)
    process(accuracy, wall(3.0))
    assert accuracy.figures().abs_rel == pytest.approx(0.25)
    level, sentence = accuracy.verdict()
    assert level == DiagnosticStatus.WARN
    assert '25% too near' in sentence
    assert 'reference.correct' in sentence


def test_a_depth_image_of_the_same_frame_needs_nothing_else(accuracy):
    accuracy.add(depth_to_image(wall(2.0).numpy(), header_at(100.0)))
    process(accuracy, wall(2.1), ReferenceSettings(reference_topic='/depth'))
    assert accuracy.figures().abs_rel == pytest.approx(0.05, rel=1e-4)


def test_a_depth_image_of_another_camera_has_its_own_calibration(accuracy):
    settings = ReferenceSettings(reference_topic='/d', reference_extrinsics='0 -0.1 0 0 0 0')
    other = Camera(width=80, height=60, fx=40.0, fy=40.0, cx=39.5, cy=29.5)
    depth_m = np.full((60, 80), 4.0, np.float32)
    depth_m[20:40, 35:45] = 1.0  # 20 rows of 1/40 m and 10 columns
    accuracy.add(depth_to_image(depth_m, header_at(100.0, 'depth_optical')))
    process(accuracy, wall(4.0), settings)
    assert 'camera_info of the depth image' in accuracy.verdict()[1]
    accuracy.add_camera_info(camera_to_info(other, Header(), None))
    depth = wall(4.0)
    depth[9:39, 31:45] = 1.0
    process(accuracy, depth, settings)
    assert accuracy.figures().abs_rel == pytest.approx(0, abs=1e-5)
    assert accuracy.figures().samples > 900


def test_frames_are_paired_with_the_nearest_stamp(accuracy):
    for stamp_s, distance_m in ((99.9, 1.0), (99.98, 2.0), (100.04, 4.0), (100.2, 8.0)):
        accuracy.add(scan_of_wall(distance_m, stamp_s))
    process(accuracy, wall(2.0), stamp_s=100.0)
    assert accuracy.figures().abs_rel == pytest.approx(0, abs=1e-5)
    assert accuracy.values()['reference after image [ms]'] == '-20.0'


def test_a_frame_without_a_reference_in_time_is_counted_and_told(accuracy):
    accuracy.add(scan_of_wall(2.0, 100.0))
    process(accuracy, wall(2.0), stamp_s=100.06)
    assert accuracy.figures().frames == 0
    assert accuracy.values()['frames without a reference in time'] == 1
    level, sentence = accuracy.verdict()
    assert level == DiagnosticStatus.WARN
    assert '0.060 s away' in sentence
    assert 'reference.tolerance_s' in sentence


def test_one_missing_pair_among_good_ones_is_no_warning(accuracy):
    accuracy.add(scan_of_wall(2.0, 100.0))
    process(accuracy, wall(2.0), stamp_s=100.0)
    process(accuracy, wall(2.0), stamp_s=100.06)
    assert accuracy.verdict()[0] == DiagnosticStatus.OK


def test_a_bag_that_starts_again_is_followed(accuracy):
    accuracy.add(scan_of_wall(2.0, 200.0))
    process(accuracy, wall(2.6), stamp_s=200.0)
    accuracy.add(scan_of_wall(2.0, 100.0))
    process(accuracy, wall(2.2), stamp_s=100.0)
    assert accuracy.figures().abs_rel == pytest.approx(0.1, rel=1e-4)  # only since then


class Transforms(FrameTransforms):
    """Counts how often what moved was forgotten."""

    cleared = 0

    def clear(self):
        self.cleared += 1


def test_transforms_of_before_are_forgotten_in_a_jump_back_whether_or_not_any_was_compared():
    transforms = Transforms(None)
    accuracy = LiveAccuracy(transforms)
    for stamp_s, cleared in ((200.0, 0), (200.1, 0), (100.0, 1), (100.1, 1)):
        process(accuracy, wall(2.0), stamp_s=stamp_s)
        assert transforms.cleared == cleared


def test_figures_and_correction_start_anew_when_asked(accuracy):
    hold(accuracy, 2.4, seconds=10)
    accuracy.reset()
    depth = wall(2.4)
    assert correct(accuracy, depth, HOLD) is depth
    assert accuracy.figures().frames == 0


def hold(accuracy, predicted_m, settings=HOLD, *, seconds=60):
    for i in range(seconds * 5):
        stamp_s = 100 + i / 5
        accuracy.add(scan_of_wall(2.0, stamp_s))
        process(accuracy, wall(predicted_m), settings, stamp_s=stamp_s)


def test_depth_is_left_alone_unless_asked(accuracy):
    hold(accuracy, 2.4, LEFT, seconds=2)
    assert accuracy.values()['correction'] == 'none'
    depth = wall(2.4)
    assert correct(accuracy, depth, LEFT) is depth


def test_a_held_correction_takes_the_error_out_and_says_so(accuracy):
    hold(accuracy, 2.4)
    corrected = correct(accuracy, wall(2.4), HOLD)
    torch.testing.assert_close(corrected, wall(2.0), rtol=0.005, atol=0)
    assert accuracy.figures().abs_rel < 0.005  # of what is published
    assert accuracy.values()['correction'].startswith('depth x 0.83')
    assert accuracy.verdict()[0] == DiagnosticStatus.OK


def test_the_correction_does_not_feed_on_itself(accuracy):
    hold(accuracy, 2.4)
    before = accuracy.correction.scale
    hold(accuracy, 2.4)
    assert before == pytest.approx(2.0 / 2.4, rel=0.005)
    assert accuracy.correction.scale == pytest.approx(2.0 / 2.4, rel=0.005)


def test_a_sensor_that_asks_for_too_much_is_told(accuracy):
    hold(accuracy, 6.0)
    level, sentence = accuracy.verdict()
    assert level == DiagnosticStatus.WARN
    assert 'more than a factor of 1.25' in sentence
    torch.testing.assert_close(correct(accuracy, wall(6.0), HOLD), wall(4.8), rtol=0.01, atol=0)


def test_turning_the_correction_off_forgets_it(accuracy):
    hold(accuracy, 2.4, seconds=10)
    depth = wall(2.4)
    assert correct(accuracy, depth, LEFT) is depth
    assert correct(accuracy, depth, HOLD) is depth


@pytest.mark.parametrize(
    'change',
    [
        {'camera': CAMERA.resized(width=128, height=96)},
        {'settings': ReferenceSettings('/scan', '0 0 0.1 0 0 0', reference_correct=True)},
        {'settings': ReferenceSettings('/scan2', '0 0.3 0.15 0 0 0', reference_correct=True)},
        {'frame_id': 'camera_2'},
    ],
)
def test_another_camera_or_sensor_starts_again(accuracy, change):
    hold(accuracy, 2.4, seconds=10)
    camera = change.get('camera', CAMERA)
    depth = torch.full((camera.height, camera.width), 2.0)
    now = {'settings': HOLD} | change
    assert correct(accuracy, depth, now.pop('settings'), **now) is depth  # from the first frame on
    accuracy.add(scan_of_wall(2.0, 200.0))
    process(accuracy, depth, **({'settings': HOLD, 'stamp_s': 200.0} | change))
    assert accuracy.values()['correction'] == 'none'
    assert accuracy.figures().frames == 1


def test_before_anything_came(accuracy):
    assert accuracy.verdict() == (DiagnosticStatus.OK, 'No frame was compared lately.')
    process(accuracy, wall(2.0))
    assert accuracy.verdict() == (
        DiagnosticStatus.WARN,
        'Depth cannot be compared: nothing has come on /scan.',
    )
    assert accuracy.values()['age [s]'] == 'none'


def test_without_a_topic_nothing_is_compared(accuracy):
    accuracy.add(scan_of_wall(2.0))
    process(accuracy, wall(2.0), ReferenceSettings())
    assert accuracy.figures().frames == 0


def test_an_unknown_transform_is_told_with_both_frames(accuracy):
    accuracy.add(scan_of_wall(2.0))
    process(accuracy, wall(2.0), ReferenceSettings(reference_topic='/scan'))
    level, sentence = accuracy.verdict()
    assert level == DiagnosticStatus.WARN
    assert "where 'laser' stands, seen from 'camera_optical', is unknown" in sentence


def test_a_sensor_that_looks_away_is_told(accuracy):
    settings = ReferenceSettings(reference_topic='/scan', reference_extrinsics='0 0 0 0 0 3.14')
    accuracy.add(scan_of_wall(2.0))
    process(accuracy, wall(2.0), settings)
    assert "of 401 points of 'laser', 0 are in the image" in accuracy.verdict()[1]


def test_a_bad_message_is_told_and_the_next_good_one_used(accuracy):
    bad = scan_of_wall(2.0, 100.0)
    bad.range_max = math.nan
    accuracy.add(bad)
    process(accuracy, wall(2.0), stamp_s=100.0)
    assert 'range_max nan' in accuracy.verdict()[1]
    accuracy.add(scan_of_wall(2.0, 101.0))
    process(accuracy, wall(2.0), stamp_s=101.0)
    assert accuracy.verdict()[0] == DiagnosticStatus.OK


def test_a_bad_calibration_of_the_depth_image_is_told(accuracy):
    accuracy.add_camera_info(CameraInfo(width=64, height=48))
    accuracy.add(depth_to_image(wall(2.0).numpy(), header_at(100.0)))
    process(accuracy, wall(2.0), ReferenceSettings(reference_topic='/depth'))
    assert 'uncalibrated' in accuracy.verdict()[1]


def test_points_of_the_camera_come_back_to_its_own_depth(accuracy):
    depth_m = np.random.default_rng(1).uniform(2, 2.3, (48, 64)).astype(np.float32)
    cloud = empty_cloud(48, 64, header_at(100.0), color=False)
    packed_points(cloud)[:] = back_project(depth_m, CAMERA)
    accuracy.add(cloud)
    process(accuracy, torch.from_numpy(depth_m), ReferenceSettings(reference_topic='/points'))
    assert accuracy.figures().abs_rel == pytest.approx(0, abs=1e-6)
    assert accuracy.figures().samples == 48 * 64 / 2  # at most 2000


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'reference_extrinsics': '1 2 3'}, 'expected six numbers'),
        ({'reference_tolerance_s': -1.0}, 'reference_tolerance_s is -1.0'),
        ({'reference_tolerance_s': math.nan}, 'reference_tolerance_s is nan'),
        ({'reference_max_factor': 0.5}, 'reference_max_factor is 0.5'),
    ],
)
def test_settings_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ReferenceSettings(**fields)


def test_old_frames_leave_the_figures():
    window = AccuracyWindow()
    window.add(np.full(10, 4.0), np.full(10, 2.0))
    for _ in range(FRAMES):
        window.add(np.full(10, 2.0), np.full(10, 2.0))
    assert window.figures().abs_rel == 0
    assert window.figures().frames == FRAMES


def test_a_frame_with_many_samples_outweighs_another_by_little():
    window = AccuracyWindow()
    window.add(np.full(100_000, 4.0), np.full(100_000, 2.0))
    window.add(np.full(2000, 2.0), np.full(2000, 2.0))
    assert window.figures().abs_rel == pytest.approx(0.5)


def test_a_window_without_frames_knows_nothing():
    figures = AccuracyWindow().figures()
    assert math.isnan(figures.abs_rel)
    assert (figures.samples, figures.frames) == (0, 0)


@pytest.mark.parametrize('topic', ['bad topic!', '/a//b', '1abc', '{scan}'])
def test_what_is_no_name_of_a_topic_is_refused(topic):
    with pytest.raises(ValueError, match=r'reference\.topic .* '):
        ReferenceSettings(topic)
