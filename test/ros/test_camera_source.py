"""Which camera an image was taken with."""

import pytest
from sensor_msgs.msg import CameraInfo

from llm_mde_core.geometry import Camera
from llm_mde_ros.camera_source import CameraSource
from llm_mde_ros.conversions import camera_from_info


def info(width: int = 64, height: int = 48, fx: float = 60.0) -> CameraInfo:
    message = CameraInfo(width=width, height=height)
    message.k = [fx, 0.0, 31.5, 0.0, fx, 23.5, 0.0, 0.0, 1.0 if fx else 0.0]
    message.p = [fx, 0.0, 31.5, 0.0, 0.0, fx, 23.5, 0.0, 0.0, 0.0, 1.0 if fx else 0.0, 0.0]
    return message


def ask(source: CameraSource, *, timeout_s: float = 0.0):
    return source.for_image(
        width=64, height=48, hfov_deg=60.0, timeout_s=timeout_s, rectified=False
    )


def test_the_newest_camera_info_counts_and_is_converted_once():
    source = CameraSource()
    source.update(info())
    camera, message = ask(source)
    assert (camera.fx, message, source.warning) == (60.0, info(), '')
    stamped_later = info()
    stamped_later.header.stamp.sec = 5
    source.update(stamped_later)
    assert ask(source)[0] is camera
    source.update(info(fx=90.0))
    assert ask(source)[0].fx == 90.0


def test_a_rectified_image_beside_the_camera_info_of_the_raw_one_has_p():
    raw = info()
    raw.d = [-0.2, 0.1, 0.0, 0.0, 0.0]
    raw.p[0], raw.p[5] = 50.0, 51.0
    source = CameraSource()
    source.update(raw)
    for rectified, fx, distortion in ((True, 50.0, ()), (False, 60.0, tuple(raw.d))):
        camera, message = source.for_image(
            width=64, height=48, hfov_deg=60.0, timeout_s=0.0, rectified=rectified
        )
        assert (camera.fx, camera.distortion) == (fx, distortion)
        assert camera_from_info(message) == camera
    assert message is raw


def test_without_one_it_waits_and_then_takes_the_field_of_view():
    source = CameraSource()
    with pytest.raises(ValueError, match='no camera_info yet'):
        ask(source, timeout_s=60.0)
    camera, message = ask(source, timeout_s=0.0)
    assert camera == Camera.from_hfov(width=64, height=48, hfov_deg=60.0)
    assert message is None
    assert 'field of view of 60 degrees' in source.warning
    source.update(info())
    assert ask(source)[0].fx == 60.0
    assert source.warning == ''


def test_an_uncalibrated_one_is_none():
    source = CameraSource()
    source.update(info(fx=0.0))
    assert ask(source, timeout_s=60.0)[1] is None
    assert 'uncalibrated' in source.warning


def test_one_of_another_size_is_refused_with_both_sizes():
    source = CameraSource()
    source.update(info(width=640, height=480))
    with pytest.raises(ValueError, match='640x480 pixels but the image has 64x48'):
        ask(source)


def test_an_unusable_one_is_refused_until_it_changes():
    source = CameraSource()
    source.update(info(fx=float('nan')))
    for _ in range(2):
        with pytest.raises(ValueError, match='nan'):
            ask(source)
    source.update(info())
    assert ask(source)[0].fx == 60.0
