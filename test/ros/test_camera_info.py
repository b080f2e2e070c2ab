import numpy as np
import pytest
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from llm_mde_core.geometry import Camera
from llm_mde_ros.conversions import camera_from_info, camera_to_info, rectified_info


@pytest.fixture
def header():
    header = Header(frame_id='camera_optical')
    header.stamp.sec, header.stamp.nanosec = 17, 250_000_001
    return header


def make_info(**overrides):
    """Return a calibration with K, P and D all different."""
    fields = {
        'header': Header(frame_id='camera'),
        'width': 640,
        'height': 480,
        'distortion_model': 'plumb_bob',
        'd': [-0.2, 0.05, 0.001, -0.001, 0.0],
        'k': [500.0, 0, 320.5, 0, 510.0, 240.5, 0, 0, 1],
        'r': np.eye(3).ravel(),
        'p': [450.0, 0, 318.5, -45.0, 0, 460.0, 238.5, 0, 0, 0, 1, 0],
    }
    return CameraInfo(**(fields | overrides))


def intrinsics(camera):
    return (camera.fx, camera.fy, camera.cx, camera.cy)


def test_a_distorted_image_has_k_and_d():
    camera = camera_from_info(make_info())
    assert intrinsics(camera) == (500, 510, 320.5, 240.5)
    assert (camera.width, camera.height) == (640, 480)
    assert camera.distortion_model == 'plumb_bob'
    assert camera.distortion == (-0.2, 0.05, 0.001, -0.001, 0.0)


@pytest.mark.parametrize('model', ['plumb_bob', 'equidistant', 'none', ''])
@pytest.mark.parametrize('coefficients', [[], [0.0] * 5])
def test_a_rectified_image_has_p(coefficients, model):
    camera = camera_from_info(make_info(d=coefficients, distortion_model=model))
    assert intrinsics(camera) == (450, 460, 318.5, 238.5)
    assert camera.distortion_model == ''
    assert camera.distortion == ()


def test_a_rectified_image_without_p_has_k():
    camera = camera_from_info(make_info(d=[], p=[0.0] * 12))
    assert intrinsics(camera) == (500, 510, 320.5, 240.5)


@pytest.mark.parametrize(
    ('model', 'count', 'expected'),
    [
        ('fisheye', 4, 'equidistant'),
        ('equidistant', 4, 'equidistant'),
        ('rational_polynomial', 8, 'rational_polynomial'),
        ('rational_polynomial', 14, 'rational_polynomial'),
        ('plumb_bob', 8, 'rational_polynomial'),
        ('rational_polynomial', 5, 'plumb_bob'),
        ('', 4, 'plumb_bob'),
    ],
)
def test_distortion_models_are_known_by_name_and_count(model, count, expected):
    coefficients = [0.01 * (index + 1) for index in range(count)]
    camera = camera_from_info(make_info(distortion_model=model, d=coefficients))
    assert camera.distortion_model == expected
    assert camera.distortion == tuple(coefficients)


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        ({'k': [0.0] * 9}, "'camera' is uncalibrated.*calibrate"),
        ({'k': [0.0] * 9, 'p': [0.0] * 12, 'd': []}, 'uncalibrated'),
        ({'k': [float('nan')] * 9}, 'fx is nan'),
        ({'k': [-500.0, 0, 320, 0, 500, 240, 0, 0, 1]}, 'fx=-500'),
        ({'width': 0}, '0 x 480'),
        ({'distortion_model': 'mei'}, "'mei'"),
        ({'d': [0.1, 0.2]}, '2 coefficients'),
        ({'d': [float('nan')] * 5}, 'must be finite'),
        ({'p': [450.0, 0, 318.5, float('inf'), 0, 460.0, 238.5, *[0.0] * 5]}, 'numbers in p'),
        ({'r': [float('nan')] * 9}, 'numbers in r'),
        ({'k': [3.6, 0, 2.4, 0, 3.6, 1.8, 0, 0, 1]}, 'implausible.*in pixels'),
        ({'k': [1e30, 0, 320, 0, 1e30, 240, 0, 0, 1]}, 'implausible'),
        ({'k': [500.0, 0, -1e9, 0, 500, 240, 0, 0, 1]}, 'implausible'),
        ({'k': [500.0, 0, 320, 0, 1300, 240, 0, 0, 1]}, 'implausible.*fx=500, fy=1300'),
        ({'k': [1300.0, 0, 320, 0, 500, 240, 0, 0, 1]}, 'implausible.*fx=1300, fy=500'),
        ({'k': [1000.0, 0, 641, 0, 1020, 481, 0, 0, 2]}, 'last row 0 0 2 in K, expected 0 0 1$'),
        ({'k': [500.0, 0, 320, 0, 500, 240, 0, 0.01, 1]}, 'last row 0 0.01 1 in K'),
        ({'k': [500.0, 0, 0, 0, 500, 0, 320, 240, 1]}, 'last row 320 240 1 in K'),
        ({'k': [500.0, 5.1, 320, 0, 510, 240, 0, 0, 1]}, '5.1 0 in K beside fx=500, fy=510'),
        ({'k': [500.0, -5.1, 320, 0, 510, 240, 0, 0, 1]}, '-5.1 0 in K'),
        ({'k': [500.0, 0, 320, 5.2, 510, 240, 0, 0, 1]}, '0 5.2 in K'),
        ({'d': [0.0] * 15}, 'more than 14 coefficients'),
    ],
)
def test_an_unusable_calibration_is_refused_with_the_reason(overrides, message):
    with pytest.raises(ValueError, match=message):
        camera_from_info(make_info(**overrides))


GOOD_P = [450.0, 0, 318.5, -45.0, 0, 460.0, 238.5, 0, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({10: 2.0}, 'last row 0 0 2 0 in P, expected 0 0 1 0$'),
        ({10: 0.0}, 'last row 0 0 0 0 in P'),
        ({11: 0.1}, 'last row 0 0 1 0.1 in P'),
        ({1: 4.6}, '4.6 0 in P'),
        ({4: -4.7}, '0 -4.7 in P'),
        ({5: 1200.0}, 'implausible.*fy=1200'),
    ],
)
def test_of_p_as_of_k_only_what_is_used_is_refused(changes, message):
    faulty = list(GOOD_P)
    for index, value in changes.items():
        faulty[index] = value
    with pytest.raises(ValueError, match=message):
        camera_from_info(make_info(d=[], p=faulty))
    assert intrinsics(camera_from_info(make_info(p=faulty))) == (500, 510, 320.5, 240.5)
    camera = camera_from_info(make_info(d=[], k=[1000.0, 9, 0, 0, 100, 0, 0, 0, 2]))
    assert intrinsics(camera) == (450, 460, 318.5, 238.5)


def test_small_inaccuracies_and_anamorphic_pixels_are_taken():
    k = [500.0, 4.9, 320.5, -4.9, 1010.0, 240.5, 1e-9, 0, 1 + 1e-9]
    assert intrinsics(camera_from_info(make_info(k=k)))[:2] == pytest.approx((500, 1010))


def test_a_rectified_image_beside_a_camera_info_with_distortion_has_p_alone(header):
    raw = make_info(r=[0, 1.0, 0, -1, 0, 0, 0, 0, 1], binning_x=2, binning_y=2)
    unchanged = serialize_message(raw)
    source = rectified_info(raw)
    camera = camera_from_info(source)
    assert (camera.fx, camera.fy) == (225, 230)
    assert camera.distortion == ()
    info = camera_to_info(camera, header, source)
    assert not any(info.d)
    np.testing.assert_array_equal(np.reshape(info.k, (3, 3)), np.reshape(info.p, (3, 4))[:, :3])
    np.testing.assert_array_equal(np.reshape(info.r, (3, 3)), np.eye(3))
    assert info.p[3] == raw.p[3] / 2  # the baseline stays
    assert camera_from_info(info) == camera
    assert serialize_message(raw) == unchanged


def test_a_rectified_image_with_a_camera_info_without_p_has_k():
    camera = camera_from_info(rectified_info(make_info(p=[0.0] * 12)))
    assert intrinsics(camera) == (500, 510, 320.5, 240.5)
    assert camera.distortion == ()


def with_region(info, *, x, y, width, height):
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = x, y, width, height
    return info


def test_a_region_of_interest_moves_the_principal_point():
    info = with_region(make_info(), x=100, y=40, width=320, height=200)
    camera = camera_from_info(info)
    assert (camera.width, camera.height) == (320, 200)
    assert intrinsics(camera) == (500, 510, 220.5, 200.5)


def test_binning_is_resampling():
    info = make_info(binning_x=2, binning_y=4)
    assert camera_from_info(info) == camera_from_info(make_info()).resized(width=320, height=120)


def test_binning_follows_the_region_of_interest():
    region = {'x': 100, 'y': 40, 'width': 320, 'height': 200}
    binned = camera_from_info(with_region(make_info(binning_x=2, binning_y=2), **region))
    whole = camera_from_info(with_region(make_info(), **region))
    assert binned == whole.resized(width=160, height=100)


def test_published_calibration_is_scaled_to_the_size_with_the_half_pixel(header):
    source = make_info()
    camera = camera_from_info(source).resized(width=320, height=240)
    info = camera_to_info(camera, header, source)
    assert info.header == header
    assert (info.width, info.height) == (320, 240)
    np.testing.assert_allclose(info.k, [250, 0, 160, 0, 255, 120, 0, 0, 1])
    np.testing.assert_allclose(info.p, [225, 0, 159, -22.5, 0, 230, 119, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(info.r, source.r)
    np.testing.assert_array_equal(info.d, source.d)
    assert info.distortion_model == 'plumb_bob'


@pytest.mark.parametrize('coefficients', [[], [-0.2, 0.05, 0.001, -0.001, 0.0]])
@pytest.mark.parametrize('with_source', [True, False])
def test_published_calibration_gives_the_same_camera(header, coefficients, with_source):
    source = make_info(d=coefficients, binning_x=2, binning_y=2)
    source = with_region(source, x=100, y=40, width=320, height=200)
    camera = camera_from_info(source).resized(width=80, height=75)
    info = camera_to_info(camera, header, source if with_source else None)
    again = camera_from_info(info)
    assert intrinsics(again) == pytest.approx(intrinsics(camera))
    assert (again.width, again.height) == (80, 75)
    assert (again.distortion_model, again.distortion) == (
        camera.distortion_model,
        camera.distortion,
    )


def test_published_calibration_fits_whole_bins_of_a_size_that_binning_does_not_divide(header):
    source = make_info(binning_x=3, binning_y=7)  # 213 and 68 whole bins
    camera = camera_from_info(source)
    assert (camera.width, camera.height) == (213, 68)
    assert intrinsics(camera)[:2] == pytest.approx((500 / 3, 510 / 7))
    again = camera_from_info(camera_to_info(camera, header, source))
    assert intrinsics(again) == pytest.approx(intrinsics(camera))


def test_the_source_calibration_is_not_changed(header):
    source = make_info()
    before = serialize_message(source)
    info = camera_to_info(camera_from_info(source).resized(width=64, height=48), header, source)
    info.d[0] = info.k[0] = info.p[0] = info.r[0] = 99.0
    assert serialize_message(source) == before


def test_calibration_from_a_field_of_view_alone(header):
    info = camera_to_info(Camera.from_hfov(width=64, height=48, hfov_deg=90), header, None)
    np.testing.assert_allclose(info.k, [32, 0, 31.5, 0, 32, 23.5, 0, 0, 1], rtol=1e-9)
    np.testing.assert_allclose(info.p, [32, 0, 31.5, 0, 0, 32, 23.5, 0, 0, 0, 1, 0], rtol=1e-9)
    np.testing.assert_array_equal(info.r, np.eye(3).ravel())
    assert (info.distortion_model, list(info.d)) == ('plumb_bob', [0] * 5)
