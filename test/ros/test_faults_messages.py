"""Faulty messages reach the running node: nothing comes of them, it says why, and goes on."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
import math
import struct
import time
from typing import Any

import cv2
import numpy as np
import pytest
from ros.conftest import calibration, stamp_ns_of
from sensor_msgs.msg import CompressedImage, Image, LaserScan, PointCloud2, PointField
from std_msgs.msg import Header

from llm_mde_core import Camera
from llm_mde_ros.conversions import (
    depth_to_image,
    empty_cloud,
    image_to_depth,
    packed_points,
)
from llm_mde_ros.depth_node import WARN_PERIOD_S

OUTPUTS = ('depth/image', 'depth/camera_info', 'depth/preview', 'confidence', 'points')
NAN = math.nan
CAMERA = Camera(width=64, height=48, fx=60.0, fy=60.0, cx=31.5, cy=23.5)


def refuses(
    robot: Any, rgb: np.ndarray, send: Callable[[], None], *, reason: str, words: str
) -> None:
    """Send what is faulty and then a good image: it alone is answered, by every output."""
    robot.listen(*OUTPUTS)
    robot.camera(Image, 'image')
    dropped = robot.count(f'dropped: {reason}')
    send()
    robot.wait_for(lambda: words in robot.told('input'), f'{words!r} in the diagnostics')
    assert robot.count(f'dropped: {reason}') == dropped + 1
    assert robot.statuses['input'].level == b'\2'
    good_ns = robot.show(rgb)
    for topic in OUTPUTS:
        robot.answer(topic, good_ns)
        assert [stamp_ns_of(message) for message in robot.received[topic]] == [good_ns]


HUGE = 2**32 - 1
IMAGES = {  # what is changed of a good image, and what is said
    'unknown encoding': ({'encoding': 'rgb9'}, "encoding 'rgb9'"),
    'depth for colour': ({'encoding': '32FC1', 'data': [NAN]}, "encoding '32FC1'"),
    'colour of floats': ({'encoding': '32FC3', 'data': [math.inf]}, "encoding '32FC3'"),
    'cut off': ({'data': bytes(100)}, 'data has 100 bytes'),
    'without data': ({'data': b''}, 'data has 0 bytes'),
    'step too small': ({'step': 7}, 'step 7 is too small'),
    'step of the next row': ({'step': 3 * 65}, 'step is wrong'),
    'step beyond the data': ({'step': HUGE}, 'step is wrong'),
    'without width': ({'width': 0}, 'size 0 x 48 is empty'),
    'without height': ({'height': 0}, 'size 64 x 0 is empty'),
    'too large': ({'width': 5000, 'height': 4000}, '5000 x 4000 pixels'),
    'as large as can be': ({'width': HUGE, 'height': HUGE, 'step': HUGE}, 'max_megapixels'),
    'wider than its rows': ({'width': 10**6, 'height': 1}, 'too small'),
}


@pytest.mark.parametrize('fault', IMAGES)
def test_a_faulty_image(robot: Any, rgb: np.ndarray, fault: str):
    changes, words = IMAGES[fault]

    def send() -> None:
        image = robot.image(rgb)
        for name, value in changes.items():
            is_float = isinstance(value, list)
            setattr(image, name, np.array(64 * 48 * value, '<f4').tobytes() if is_float else value)
        robot.camera(Image, 'image').publish(image)

    refuses(robot, rgb, send, reason='image', words=words)


def test_many_faulty_images_are_few_lines_of_the_log(robot: Any, rgb: np.ndarray):
    robot.listen('depth/image')
    dropped, started_s = robot.count('dropped: image'), time.monotonic()
    lines = robot.under_test.text().count('Image dropped (image)')
    for _ in range(12):
        image = robot.image(rgb)
        image.encoding = 'rgb9'
        before = robot.count('dropped: image')
        robot.camera(Image, 'image').publish(image)
        robot.wait_for(lambda before=before: robot.count('dropped: image') > before, 'drop')
    assert robot.count('dropped: image') == dropped + 12
    lines = robot.under_test.text().count('Image dropped (image)') - lines
    assert lines <= 1 + (time.monotonic() - started_s) / WARN_PERIOD_S


def of_size(data: bytes, width: int, height: int) -> bytes:
    """Return a JPEG or PNG whose header announces another size."""
    if data.startswith(b'\x89PNG'):
        return data[:16] + struct.pack('>II', width, height) + data[24:]
    start = data.index(b'\xff\xc0') + 5
    return data[:start] + struct.pack('>HH', height, width) + data[start + 4 :]


SCAN = b'\xff\xda'
COMPRESSED = {  # what is made of a good file, and what is said
    'a broken jpeg': ('.jpg', lambda data: data[:200] + data[300:], 'cannot be decoded'),
    'a jpeg without size': (
        '.jpg',
        lambda data: data[:2] + data[data.index(SCAN) :],
        'without a size',
    ),
    'half a jpeg': ('.jpg', lambda data: data[: len(data) // 2], 'cut off'),
    'half a png': ('.png', lambda data: data[: len(data) // 2], 'cut off PNG'),
    'a bomb of a jpeg': ('.jpg', lambda data: of_size(data, 60_000, 50_000), '60000 x 50000'),
    'a bomb of a png': ('.png', lambda data: of_size(data, 10**6, 10**6), '1000000 x 1000000'),
    'no picture': ('.png', lambda data: b'GIF89a' + data, 'neither JPEG nor PNG'),
    'nothing': ('.png', lambda data: b'', 'neither JPEG nor PNG'),
}


@pytest.mark.parametrize('fault', COMPRESSED)
def test_a_faulty_compressed_image(robot: Any, rgb: np.ndarray, fault: str):
    extension, change, words = COMPRESSED[fault]
    data = change(cv2.imencode(extension, rgb)[1].tobytes())
    robot.listen('depth/image')
    with robot.parameter('image_transport', 'compressed', default='raw'):
        camera = robot.camera(CompressedImage, 'image/compressed')
        robot.calibrate(width=64, height=48, fx=60.0)
        dropped = robot.count('dropped: image')
        camera.publish(robot.stamp(CompressedImage(format=extension[1:], data=data)))
        robot.wait_for(lambda: words in robot.told('input'), f'{words!r} in the diagnostics')
        assert robot.count('dropped: image') == dropped + 1
        good = cv2.imencode(extension, rgb)[1].tobytes()
        camera.publish(robot.stamp(CompressedImage(format=extension[1:], data=good)))
        robot.answer('depth/image', robot.stamp_ns)
        assert len(robot.received['depth/image']) == 1


def test_a_jpeg_with_wrong_bytes_inside_its_scan_gives_depth_of_what_is_decoded(
    robot: Any, rgb: np.ndarray
):
    sound = cv2.imencode('.jpg', rgb)[1].tobytes()
    at = sound.index(SCAN) + 100
    damaged = sound[:at] + 50 * b'\x55' + sound[at + 50 :]
    robot.listen('depth/image')
    with robot.parameter('image_transport', 'compressed', default='raw'):
        camera = robot.camera(CompressedImage, 'image/compressed')
        robot.calibrate(width=64, height=48, fx=60.0)
        for data in (damaged, sound):
            camera.publish(robot.stamp(CompressedImage(format='jpeg', data=data)))
            robot.answer('depth/image', robot.stamp_ns)


TOPICS = {'raw': 'image', 'compressed': 'image/compressed'}


@pytest.mark.parametrize('transport', TOPICS)
def test_the_largest_image_is_a_parameter(robot: Any, rgb: np.ndarray, transport: str):
    robot.listen('depth/image')
    image = robot.image(cv2.resize(rgb, (128, 96)))
    if transport == 'compressed':
        data = cv2.imencode('.png', cv2.resize(rgb, (128, 96)))[1].tobytes()
        image = robot.stamp(CompressedImage(format='png', data=data))
    with robot.parameter('image_transport', transport, default='raw'):
        camera = robot.camera(type(image), TOPICS[transport])
        robot.calibrate(width=128, height=96, fx=60.0)
        with robot.parameter('max_megapixels', 0.012, default=16.0):
            camera.publish(image)
            robot.wait_for(lambda: '128 x 96 pixels' in robot.told('input'), 'word of it')
        camera.publish(robot.stamp(image))
        robot.answer('depth/image', robot.stamp_ns)
        assert len(robot.received['depth/image']) == 1


CAMERA_INFOS = {  # what is changed of a good one, and what is said
    'k not a number': ({'k': [NAN] * 9, 'p': [NAN] * 12}, 'nan'),
    'k infinite': ({'k': [math.inf] * 9, 'p': [math.inf] * 12}, 'fx is nan'),
    'p not a number': ({'p': [60.0, 0.0, 31.5, NAN, 0.0, 60.0, *[0.0] * 6]}, 'numbers in p'),
    'p infinite': ({'p': [60.0, 0.0, 31.5, math.inf, 0.0, 60.0, *[0.0] * 6]}, 'numbers in p'),
    'r not a number': ({'r': [NAN] * 9}, 'numbers in r'),
    'r infinite': ({'r': [-math.inf] * 9}, 'numbers in r'),
    'd not a number': ({'d': [NAN] * 5}, 'finite'),
    'd infinite': ({'d': [math.inf] * 5}, 'finite'),
    'of a distortion too short': ({'d': [0.1, 0.2]}, '2 coefficients'),
    'a lens unknown': ({'d': [0.1] * 5, 'distortion_model': 'mei'}, "'mei'"),
    'a focal length below zero': ({'p': [-60.0, 0, 31.5, 0, 0, -60.0, *[0.0] * 6]}, 'fx=-60'),
    'in millimetres': ({'p': [0.36, 0, 3.1, 0, 0, 0.36, 2.3, *[0.0] * 5]}, 'implausible'),
    'of a telescope': ({'p': [1e9, 0, 31.5, 0, 0, 1e9, *[0.0] * 6]}, 'implausible'),
    'of uneven pixels': ({'p': [60.0, 0, 31.5, 0, 0, 160.0, 23.5, 0, 0, 0, 1, 0]}, 'fy=160'),
    'two times k': (
        {'k': [120.0, 0, 63, 0, 120, 47, 0, 0, 2], 'd': [0.1] * 5},
        'last row 0 0 2 in K',
    ),
    'two times p': ({'p': [120.0, 0, 63, 0, 0, 120, 47, 0, 0, 0, 2, 0]}, 'last row 0 0 2 0 in P'),
    'skewed': ({'p': [60.0, 1, 31.5, 0, 0, 60, 23.5, 0, 0, 0, 1, 0]}, '1 0 in P'),
    'of too many zeros': ({'d': array('d', bytes(8 * 100_000))}, 'more than 14 coefficients'),
    'of another size': ({'width': 320, 'height': 240}, '320x240'),
    'without size': ({'width': 0, 'height': 0}, 'camera size 0 x 0'),
    'as large as can be': ({'width': HUGE, 'height': HUGE}, f'{HUGE}'),
}


@pytest.mark.parametrize('fault', CAMERA_INFOS)
def test_a_faulty_camera_info(robot: Any, rgb: np.ndarray, fault: str):
    changes, words = CAMERA_INFOS[fault]

    def send() -> None:
        info = calibration(width=64, height=48, fx=60.0)
        for name, value in changes.items():
            setattr(info, name, value)
        robot.tell(info)
        robot.show(rgb, fx=None)

    refuses(robot, rgb, send, reason='camera_info', words=words)


def test_a_camera_info_of_zeros_is_none_and_the_field_of_view_is_used(robot: Any, rgb: np.ndarray):
    robot.listen('depth/camera_info')
    assert robot.answer('depth/camera_info', robot.show(rgb)).k[0] == 60.0
    info = calibration(width=64, height=48, fx=60.0)
    info.k, info.p = [0.0] * 9, [0.0] * 12
    robot.tell(info)
    assumed = robot.answer('depth/camera_info', robot.show(rgb, fx=None))
    assert assumed.k[0] == pytest.approx(32 / np.tan(np.radians(30)))
    robot.wait_for(lambda: 'uncalibrated' in robot.told('input'), 'warning')
    assert robot.statuses['input'].level == b'\1'
    assert robot.answer('depth/camera_info', robot.show(rgb)).k[0] == 60.0


def test_a_camera_info_of_another_frame_is_used_with_a_warning(robot: Any, rgb: np.ndarray):
    robot.listen('depth/camera_info')
    info = calibration(width=64, height=48, fx=60.0)
    info.header.frame_id = 'right_optical'
    robot.tell(info)
    assert robot.answer('depth/camera_info', robot.show(rgb, fx=None)).k[0] == 60.0
    robot.wait_for(lambda: "of frame 'right_optical' but" in robot.told('input'), 'warning')
    assert robot.statuses['input'].level == b'\1'
    assert robot.answer('depth/camera_info', robot.show(rgb)).k[0] == 60.0  # of no frame
    robot.wait_for(lambda: 'right_optical' not in robot.told('input'), 'the end of it')


SCANS = {  # what is changed of a scan of a wall, and what is said
    'without an angle': ({'angle_min': NAN}, 'angle_min nan'),
    'of infinite steps': ({'angle_increment': math.inf}, 'angle_increment inf'),
    'without limits': ({'range_min': 1.0, 'range_max': NAN}, 'range_max nan'),
    'of numbers that are none': ({'ranges': [NAN] * 401}, 'of 0 points'),
    'that hit nothing': ({'ranges': [math.inf] * 401}, 'of 0 points'),
    'without ranges': ({'ranges': []}, 'of 0 points'),
    'of a sensor that looks elsewhere': ({'angle_min': 2.5}, '0 are in the image'),
}


@pytest.fixture
def corrected(robot: Any, rgb: np.ndarray) -> Iterator[Any]:
    """Let depth follow a scanner that stands where the camera does."""
    robot.listen('depth/image')
    robot.answer('depth/image', robot.show(rgb))  # without a reference: what was held is forgotten
    with (
        robot.parameter('reference.topic', 'scan', default=''),
        robot.parameter('reference.extrinsics', '0 0 0 0 0 0', default=''),
        robot.parameter('reference.correct', True, default=False),
    ):
        yield robot


@pytest.mark.parametrize('fault', SCANS)
def test_a_faulty_reference(corrected: Any, rgb: np.ndarray, fault: str):
    changes, words = SCANS[fault]
    robot = corrected
    depth_beside(robot, rgb, changes)
    robot.wait_for(lambda: words in robot.told('accuracy'), f'{words!r} in the diagnostics')
    assert robot.statuses['accuracy'].level == b'\1'
    assert robot.values('accuracy')['correction'] == 'none'
    depth_beside(robot, rgb, {})
    robot.wait_for(lambda: robot.count('frames', 'accuracy') == 1, 'a good scan')


def test_faulty_references_do_not_change_the_correction(corrected: Any, rgb: np.ndarray):
    robot = corrected
    plain_m = depth_beside(robot, rgb, {})
    depth_beside(robot, rgb, {'ranges': [10 * float(np.nanmedian(plain_m))] * 401})
    before_m = depth_beside(robot, rgb, {'ranges': []})
    assert (before_m > plain_m).mean() > 0.9
    for changes, _ in SCANS.values():
        after_m = depth_beside(robot, rgb, changes)
    np.testing.assert_allclose(after_m, before_m, rtol=1e-5)


def image_of_wall(depth_m: np.ndarray) -> Image:
    return depth_to_image(depth_m, Header())


def cloud_of_wall(depth_m: np.ndarray) -> PointCloud2:
    """Return points in a frame whose x looks ahead."""
    cloud = empty_cloud(48, 64, Header(), color=False)
    right, down = np.moveaxis(CAMERA.rays(), 2, 0)
    packed_points(cloud)[:] = np.stack([np.ones((48, 64)), -right, -down], 2) * depth_m[..., None]
    return cloud


@pytest.mark.parametrize('value', [NAN, math.inf, -math.inf])
@pytest.mark.parametrize('reference', [image_of_wall, cloud_of_wall])
def test_numbers_that_are_none_in_a_reference_are_left_out(
    robot: Any, rgb: np.ndarray, reference: Callable[[np.ndarray], Any], value: float
):
    wall_m = np.full((48, 64), value, np.float32)
    robot.listen('depth/image')
    robot.answer('depth/image', robot.show(rgb))
    with (
        robot.parameter('reference.topic', f'beside/{reference.__name__}', default=''),
        robot.parameter('reference.extrinsics', '0 0 0 0 0 0', default=''),
    ):
        show_beside(robot, rgb, f'beside/{reference.__name__}', reference(wall_m))
        robot.wait_for(lambda: 'of 0 points' in robot.told('accuracy'), 'word of it')
        wall_m[::4] = 2.0
        show_beside(robot, rgb, f'beside/{reference.__name__}', reference(wall_m))
        robot.wait_for(lambda: robot.count('frames', 'accuracy') == 1, 'some good points')
        assert robot.count('samples', 'accuracy') == 12 * 64
        assert math.isfinite(float(robot.values('accuracy')['AbsRel']))


FIELDS = {  # what is changed of the field z of a cloud, and what is said
    'as far as NumPy counts': ({'offset': 2**31 - 1}, 'z at byte 2147483647'),
    'farther': ({'offset': HUGE}, f'z at byte {HUGE}'),
    'in the next point': ({'offset': 10}, 'z at byte 10'),
    'of many values': ({'count': HUGE}, f'{HUGE} of 4 bytes'),
    'of an unknown type': ({'datatype': 0}, 'unknown datatype: z'),
    'by another name': ({'name': 'r'}, 'no field z'),
}


@pytest.mark.parametrize('fault', FIELDS)
def test_a_cloud_with_a_faulty_field(robot: Any, rgb: np.ndarray, fault: str):
    """Read beyond its data, it would end the process."""
    changes, words = FIELDS[fault]
    robot.listen('depth/image')
    robot.answer('depth/image', robot.show(rgb))  # without a reference: figures begin anew
    cloud = empty_cloud(1, 400, Header(), color=False)
    packed_points(cloud)[0] = [(2.0, (column - 200) / 200, 0.1) for column in range(400)]  # a wall
    sound = cloud.fields[2]
    faulty = PointField(name=sound.name, offset=sound.offset, datatype=sound.datatype, count=1)
    for name, value in changes.items():
        setattr(faulty, name, value)
    with (
        robot.parameter('reference.topic', 'cloud', default=''),
        robot.parameter('reference.extrinsics', '0 0 0 0 0 0', default=''),
    ):
        cloud.fields[2] = faulty
        show_beside(robot, rgb, 'cloud', cloud)
        robot.wait_for(lambda: words in robot.told('accuracy'), f'{words!r} in the diagnostics')
        assert robot.values('accuracy')['frames'] == '0'
        cloud.fields[2] = sound
        show_beside(robot, rgb, 'cloud', cloud)
        robot.wait_for(lambda: robot.count('frames', 'accuracy') == 1, 'a good cloud')


def depth_beside(robot: Any, rgb: np.ndarray, changes: dict[str, Any]) -> np.ndarray:
    """Return the depth of an image with the stamp of a scan."""
    angles = np.linspace(-1, 1, 401)
    scan = LaserScan(angle_min=-1.0, angle_increment=0.005, range_max=30.0)
    scan.ranges = (2.0 / np.cos(angles)).astype(np.float32).tolist()
    for name, value in changes.items():
        setattr(scan, name, value)
    return show_beside(robot, rgb, 'scan', scan)


def show_beside(robot: Any, rgb: np.ndarray, topic: str, reference: Any) -> np.ndarray:
    """Return the depth of an image with the stamp of a reference."""
    robot.stamp(reference)
    robot.stamp_ns -= 100_000_000  # the image has its stamp
    robot.camera(type(reference), topic).publish(reference)
    robot.settle()
    return image_to_depth(robot.answer('depth/image', robot.show(rgb)))
