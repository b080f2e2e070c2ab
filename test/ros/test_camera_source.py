"""Which camera an image was taken with."""

from array import array
from concurrent.futures import ThreadPoolExecutor
import threading

import pytest
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from llm_mde_core.geometry import Camera
from llm_mde_ros.camera_source import CameraSource, RecentInfos
from llm_mde_ros.conversions import camera_from_info


def info(width: int = 64, height: int = 48, fx: float = 60.0, *, second: int = 0) -> CameraInfo:
    message = CameraInfo(header=header(second), width=width, height=height)
    message.k = [fx, 0.0, 31.5, 0.0, fx, 23.5, 0.0, 0.0, 1.0 if fx else 0.0]
    message.p = [fx, 0.0, 31.5, 0.0, 0.0, fx, 23.5, 0.0, 0.0, 0.0, 1.0 if fx else 0.0, 0.0]
    return message


def header(second: int) -> Header:
    made = Header()
    made.stamp.sec = second
    return made


def recent(*fx_of: tuple[int, float]) -> RecentInfos:
    """Return what is kept of camera_info that came with (second, fx)."""
    infos = RecentInfos()
    for second, fx in fx_of:
        infos.add(info(fx=fx, second=second))
    return infos


def ask(
    source: CameraSource,
    message: CameraInfo | None,
    *,
    timeout_s: float = 0.0,
    image_frame: str = '',
    rectified: bool = False,
):
    return source.for_image(
        message,
        width=64,
        height=48,
        hfov_deg=60.0,
        timeout_s=timeout_s,
        rectified=rectified,
        image_frame=image_frame,
    )


@pytest.mark.parametrize(
    ('came', 'second', 'fx'),
    [
        ([(1, 60.0), (2, 120.0)], 1, 60.0),  # its own
        ([(1, 60.0), (2, 120.0)], 2, 120.0),
        ([(1, 60.0), (3, 90.0), (5, 120.0)], 4, 90.0),  # the newest that is not newer
        ([(1, 60.0), (2, 120.0)], 1000, 120.0),
        ([(1, 60.0), (1000, 120.0)], 1, 60.0),
        ([(1, 60.0), (2, 120.0)], 0, 120.0),  # all are newer
        ([(1, 60.0), (2, 120.0)], -9, 120.0),
        ([(0, 60.0), (0, 120.0)], 0, 120.0),  # none is stamped
        ([(0, 60.0), (0, 120.0)], 7, 120.0),
        ([(0, 60.0), (1000, 120.0)], 7, 120.0),  # the newest has the stamp of another clock
        ([(8, 60.0), (9, 90.0), (1, 120.0)], 9, 120.0),  # time went back
        ([(8, 60.0), (9, 90.0), (1, 120.0)], 1, 120.0),
        ([(1, 60.0), (9, 90.0), (2, 120.0)], 1, 120.0),
        ([(8, 60.0), (9, 90.0), (1, 120.0), (2, 150.0)], 1, 120.0),
        ([(n, 60.0 + n) for n in range(100)], 90, 150.0),  # a few are kept
        ([(n, 60.0 + n) for n in range(100)], 50, 159.0),
    ],
)
def test_an_image_has_the_camera_info_of_its_time(came, second, fx):
    assert recent(*came).at(header(second)).k[0] == fx


@pytest.mark.parametrize('count', [14, 15, 3_000_000])
def test_of_too_many_coefficients_few_are_kept(count):
    message, infos = info(), RecentInfos()
    message.d = array('d', bytes(8 * count))
    infos.add(message)
    assert len(infos.at(header(0)).d) == min(count, 15)


@pytest.mark.parametrize('rectified', [True, False])
def test_too_many_coefficients_are_refused(rectified):
    message, infos, source = info(), RecentInfos(), CameraSource()
    message.d = array('d', bytes(8 * 1000))
    infos.add(message)
    with pytest.raises(ValueError, match='more than 14 coefficients'):
        ask(source, infos.at(header(0)), rectified=rectified)
    assert source.warning


def test_without_any_there_is_none():
    infos = RecentInfos()
    infos.keep_newest()
    assert infos.at(header(1)) is None


def test_when_the_images_jump_back_no_old_camera_info_is_taken():
    infos = recent((1, 60.0), (8, 90.0), (9, 120.0))
    infos.keep_newest()
    assert [infos.at(header(second)).k[0] for second in (1, 8, 9)] == [120.0] * 3
    infos.add(info(fx=150.0, second=1))
    assert infos.at(header(2)).k[0] == 150.0


def test_a_reader_in_another_thread_is_never_without_one():
    infos, end = recent((1, 60.0)), threading.Event()

    def jump() -> None:
        for n in range(20_000):
            infos.add(info_of[n % 3])
            if n % 5 == 0:
                infos.keep_newest()
        end.set()

    info_of = [info(second=second) for second in (1, 2, 3)]
    with ThreadPoolExecutor(1) as pool:
        jumping = pool.submit(jump)
        while not end.is_set():
            assert infos.at(header(2)) is not None
        jumping.result()


def test_a_camera_info_is_converted_once():
    source = CameraSource()
    camera, message = ask(source, info())
    assert (camera.fx, message, source.warning) == (60.0, info(), '')
    assert ask(source, info(second=5))[0] is camera
    assert ask(source, info(fx=90.0))[0].fx == 90.0


def test_a_rectified_image_beside_the_camera_info_of_the_raw_one_has_p():
    raw = info()
    raw.d = [-0.2, 0.1, 0.0, 0.0, 0.0]
    raw.p[0], raw.p[5] = 50.0, 51.0
    source = CameraSource()
    for rectified, fx, distortion in ((True, 50.0, ()), (False, 60.0, tuple(raw.d))):
        camera, message = source.for_image(
            raw, width=64, height=48, hfov_deg=60.0, timeout_s=0.0, rectified=rectified
        )
        assert (camera.fx, camera.distortion) == (fx, distortion)
        assert camera_from_info(message) == camera
    assert message is raw


@pytest.mark.parametrize(
    ('info_frame', 'image_frame', 'is_warned'),
    [
        ('left', 'right', True),
        ('left', 'left', False),
        ('/left', 'left', False),  # as before tf2
        ('', 'right', False),
        ('left', '', False),
    ],
)
def test_a_camera_info_of_another_frame_is_used_with_a_warning(info_frame, image_frame, is_warned):
    source, message = CameraSource(), info()
    message.header.frame_id = info_frame
    for frame, warned in ((image_frame, is_warned), (info_frame, False)):
        camera, used = ask(source, message, image_frame=frame)
        assert (camera.fx, used) == (60.0, message)
        words = ("frame 'left' but the image of 'right'", 'Remap camera_info')
        assert [part in source.warning for part in words] == [warned] * 2
        assert bool(source.warning) == warned
        assert ('another frame' in source.state) == warned


def test_without_one_it_waits_and_then_takes_the_field_of_view():
    source = CameraSource()
    with pytest.raises(ValueError, match='no camera_info yet'):
        ask(source, None, timeout_s=60.0)
    camera, message = ask(source, None)
    assert camera == Camera.from_hfov(width=64, height=48, hfov_deg=60.0)
    assert message is None
    assert 'field of view of 60 degrees' in source.warning
    assert ask(source, info())[0].fx == 60.0
    assert source.warning == ''


def test_an_uncalibrated_one_is_none():
    source = CameraSource()
    assert ask(source, info(fx=0.0), timeout_s=60.0)[1] is None
    assert 'uncalibrated' in source.warning


def test_one_of_another_size_is_refused_with_both_sizes():
    source = CameraSource()
    with pytest.raises(ValueError, match='640x480 pixels but the image has 64x48'):
        ask(source, info(width=640, height=480))


def test_an_unusable_one_is_refused_until_it_changes():
    source = CameraSource()
    for _ in range(2):
        with pytest.raises(ValueError, match='nan'):
            ask(source, info(fx=float('nan')))
    assert ask(source, info())[0].fx == 60.0


def test_of_long_frames_a_part_is_told():
    source, message = CameraSource(), info()
    message.header.frame_id = 'left' * 100_000
    ask(source, message, image_frame='\udcff' * 100_000)
    assert 'leftleft' in source.warning
    assert 'Remap camera_info' in source.warning
    assert len(source.warning.encode()) < 1500
