import sys

import numpy as np
import pytest
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from llm_mde_ros import image_messages
from llm_mde_ros.conversions import (
    depth_to_image,
    image_to_depth,
    image_to_rgb,
    mono_to_image,
    preview_to_image,
)

RNG = np.random.default_rng(7)
RGB = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 8), dtype=np.uint8)


@pytest.fixture
def header():
    header = Header(frame_id='camera_optical')
    header.stamp.sec, header.stamp.nanosec = 17, 250_000_001
    return header


def make_image(pixels, encoding, *, padding=0, big_endian=False):
    """Return an image message with `padding` bytes of rubbish after each row."""
    wire = pixels.astype(pixels.dtype.newbyteorder('>' if big_endian else '<'))
    rows = np.ascontiguousarray(wire).view(np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xAB)
    return Image(
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=int(big_endian),
        step=rows.shape[1],
        data=rows.tobytes(),
    )


def with_alpha(colors):
    return np.dstack([colors, RNG.integers(0, 256, colors.shape[:2], dtype=np.uint8)])


def as_yuv(rgb, *, order):
    """Return 4:2:2 pixels of an image whose pairs of columns are equal, by BT.601."""
    r, g, b = np.moveaxis(rgb.astype(float), -1, 0)
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u = 128 - 0.148 * r - 0.291 * g + 0.439 * b
    v = 128 + 0.439 * r - 0.368 * g - 0.071 * b
    chroma = np.where(np.arange(rgb.shape[1]) % 2 == 0, u, v)
    pair = (chroma, y) if order == 'uyvy' else (y, chroma)
    return np.rint(np.dstack(pair)).astype(np.uint8)


def mosaic(pattern, rgb, dtype=np.uint8):
    """Return what a sensor with this colour filter sees of a uniform colour."""
    values = [rgb['rgb'.index(letter)] for letter in pattern]
    return np.tile(np.array(values, dtype).reshape(2, 2), (4, 5))


GREY_RGB = np.dstack([GREY] * 3)
PAIRS_RGB = np.repeat(RNG.integers(60, 200, (6, 4, 3), dtype=np.uint8), 2, axis=1)
EXACT = {
    'rgb8': (RGB, RGB),
    'bgr8': (RGB[..., ::-1], RGB),
    'rgba8': (with_alpha(RGB), RGB),
    'bgra8': (with_alpha(RGB[..., ::-1]), RGB),
    'mono8': (GREY, GREY_RGB),
    'mono16': (GREY.astype(np.uint16) * 257, GREY_RGB),
    '8UC1': (GREY, GREY_RGB),
    '8UC3': (RGB[..., ::-1], RGB),
    '8UC4': (with_alpha(RGB[..., ::-1]), RGB),
}
YUV = {'yuv422': 'uyvy', 'uyvy': 'uyvy', 'yuv422_yuy2': 'yuyv', 'yuyv': 'yuyv'}
BAYER = ['rggb', 'bggr', 'gbrg', 'grbg']


@pytest.mark.parametrize('padding', [0, 1, 7])
@pytest.mark.parametrize('encoding', EXACT)
def test_colour_and_grey_images_become_rgb(encoding, padding):
    pixels, expected = EXACT[encoding]
    padding *= pixels.itemsize
    rgb = image_to_rgb(make_image(pixels, encoding, padding=padding))
    assert rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb, expected)


def test_every_encoding_has_a_test():
    bayer = [f'bayer_{pattern}{bits}' for pattern in BAYER for bits in (8, 16)]
    assert {*EXACT, *YUV, *bayer} == set(image_messages.COLOR_ENCODINGS)


@pytest.mark.parametrize('padding', [0, 6])
def test_big_endian_pixels_are_swapped(padding):
    pixels, expected = EXACT['mono16']
    message = make_image(pixels, 'mono16', padding=padding, big_endian=True)
    np.testing.assert_array_equal(image_to_rgb(message), expected)


def test_big_endian_means_nothing_to_pixels_of_one_byte():
    np.testing.assert_array_equal(image_to_rgb(make_image(RGB, 'rgb8', big_endian=True)), RGB)


def test_16_bits_are_scaled_and_rounded_to_8():
    pixels = np.array([[0, 128, 129, 257, 32767, 65535]], np.uint16)
    rgb = image_to_rgb(make_image(pixels, 'mono16'))
    np.testing.assert_array_equal(rgb[0, :, 0], [0, 0, 1, 1, 127, 255])


@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize(('encoding', 'order'), YUV.items())
def test_yuv_images_become_rgb(encoding, order, padding):
    message = make_image(as_yuv(PAIRS_RGB, order=order), encoding, padding=padding)
    np.testing.assert_allclose(image_to_rgb(message).astype(int), PAIRS_RGB, atol=3)


@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('pattern', BAYER)
def test_a_bayer_mosaic_of_one_colour_gives_that_colour(pattern, dtype, big_endian):
    color = (200, 100, 50)
    scale = 257 if dtype == np.uint16 else 1
    pixels = mosaic(pattern, np.array(color) * scale, dtype)
    encoding = f'bayer_{pattern}{8 * pixels.itemsize}'
    rgb = image_to_rgb(make_image(pixels, encoding, padding=2, big_endian=big_endian))
    np.testing.assert_array_equal(rgb, np.broadcast_to(color, (8, 10, 3)))


def test_the_array_is_not_the_memory_of_the_message():
    message = make_image(RGB, 'rgb8')
    rgb = image_to_rgb(message)
    rgb[:] = 0
    np.testing.assert_array_equal(image_to_rgb(message), RGB)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'encoding': 'nv12'}, "'nv12'.*rgb8, bgr8"),
        ({'encoding': '32FC1'}, "'32FC1' as colour"),
        ({'encoding': ''}, "encoding ''"),
        ({'step': 23}, 'step 23 is too small: 8 pixels of rgb8 take 24'),
        ({'step': 0}, 'step 0 is too small'),
        ({'step': 25}, '144 bytes, but 6 rows of step 25 make 150'),
        ({'height': 7}, '144 bytes, but 7 rows of step 24 make 168'),
        ({'height': 0}, '8 x 0 is empty'),
        ({'width': 0}, '0 x 6 is empty'),
    ],
)
def test_a_malformed_image_is_refused_with_the_reason(changes, message):
    image = make_image(RGB, 'rgb8')
    for name, value in changes.items():
        setattr(image, name, value)
    with pytest.raises(ValueError, match=message):
        image_to_rgb(image)


def test_truncated_data_is_refused():
    image = make_image(RGB, 'rgb8')
    image.data = image.data[:-1]
    with pytest.raises(ValueError, match=r'143 bytes.*truncated'):
        image_to_rgb(image)


def test_a_yuv_image_of_odd_width_is_refused():
    with pytest.raises(ValueError, match='yuyv is 7 wide'):
        image_to_rgb(make_image(np.zeros((6, 7, 2), np.uint8), 'yuyv'))


@pytest.mark.parametrize('encoding', image_messages.COLOR_ENCODINGS)
def test_cv_bridge_and_opencv_decode_alike(encoding):
    if image_messages.sound_cv_bridge() is None:
        pytest.skip('cv_bridge is not installed, or not sound with this NumPy and OpenCV')
    encoding = image_messages._SYNONYMS.get(encoding, encoding)
    layout = image_messages._LAYOUTS[encoding]
    shape = (6, 8) if layout.channels == 1 else (6, 8, layout.channels)
    pixels = RNG.integers(0, np.iinfo(layout.dtype).max, shape, dtype=layout.dtype)
    expected = image_messages.decode_with_opencv(pixels, encoding)
    for padding, big_endian in ((0, False), (2, False), (4, True)):
        message = make_image(pixels, encoding, padding=padding, big_endian=big_endian)
        np.testing.assert_array_equal(image_to_rgb(message), expected)


@pytest.mark.parametrize(
    'body',
    [
        'from cv_bridge.boost.cv_bridge_boost import cvtColor2',  # built for another Python
        'return np.frombuffer(msg.data, np.uint8).reshape(msg.height, -1)',  # for ROS 1
        'raise KeyError(24)',  # for another OpenCV
        'os.abort()',  # for another NumPy
        'time.sleep(600)',
    ],
)
def test_a_cv_bridge_that_does_not_work_is_not_used(tmp_path, monkeypatch, body):
    source = f"""
import os
import time
import numpy as np
class CvBridgeError(TypeError): pass
class CvBridge:
    def imgmsg_to_cv2(self, msg, encoding):
        {body}
"""
    if 'sleep' in body:
        monkeypatch.setattr(image_messages, 'CHECK_TIMEOUT_S', 3.0)
    (tmp_path / 'cv_bridge.py').write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split('.')[0] == 'cv_bridge']:
        monkeypatch.delitem(sys.modules, name)
    image_messages.sound_cv_bridge.cache_clear()
    try:
        assert image_messages.sound_cv_bridge() is None
        np.testing.assert_array_equal(image_to_rgb(make_image(RGB, 'rgb8')), RGB)
    finally:
        sys.modules.pop('cv_bridge', None)
        image_messages.sound_cv_bridge.cache_clear()


DEPTH_M = np.array([[0.5, 1.2345, np.nan], [60.0, 9.9996, 0.001]], np.float32)


def test_metres_are_published_as_they_are(header):
    message = depth_to_image(DEPTH_M, header)
    assert (message.encoding, message.step, message.width, message.height) == ('32FC1', 12, 3, 2)
    assert message.header == header
    np.testing.assert_array_equal(image_to_depth(message), DEPTH_M)


def test_millimetres_are_rounded_and_zero_where_unknown(header):
    depth_m = np.array([[0.5, 1.2345, np.nan, 9.9996, 1.2344]], np.float32)
    message = depth_to_image(depth_m, header, '16UC1')
    assert (message.encoding, message.step) == ('16UC1', 10)
    pixels = np.frombuffer(message.data, np.uint16)
    np.testing.assert_array_equal(pixels, [500, 1234, 0, 10000, 1234])
    np.testing.assert_allclose(image_to_depth(message)[0], [0.5, 1.234, np.nan, 10, 1.234])


def test_millimetres_that_16_bits_cannot_hold_are_unknown(header):
    depth_m = np.array([[65.535, 65.536, 66.0, 1e9, np.inf, -1.0, 0.0]], np.float32)
    pixels = np.frombuffer(depth_to_image(depth_m, header, '16UC1').data, np.uint16)
    np.testing.assert_array_equal(pixels, [65535, 0, 0, 0, 0, 0, 0])


def test_an_unknown_depth_encoding_is_refused(header):
    with pytest.raises(ValueError, match="'64FC1', expected 32FC1 or 16UC1"):
        depth_to_image(DEPTH_M, header, '64FC1')
    with pytest.raises(ValueError, match="'rgb8' as depth"):
        image_to_depth(make_image(RGB, 'rgb8'))


@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize('padding', [0, 4])
def test_padded_and_big_endian_depth_is_read(padding, big_endian):
    metres = make_image(DEPTH_M, '32FC1', padding=padding, big_endian=big_endian)
    np.testing.assert_array_equal(image_to_depth(metres), DEPTH_M)
    millimetres = np.array([[1000, 0, 2500]], np.uint16)
    message = make_image(millimetres, '16UC1', padding=padding, big_endian=big_endian)
    np.testing.assert_allclose(image_to_depth(message), [[1, np.nan, 2.5]])


def test_what_is_no_depth_is_unknown():
    depth_m = np.array([[np.inf, -np.inf, 0, -1, 2]], np.float32)
    np.testing.assert_array_equal(
        image_to_depth(make_image(depth_m, '32FC1')), [[np.nan] * 4 + [2]]
    )


def test_confidence_is_published_as_it_is(header):
    confidence = np.array([[0.0, 0.25], [0.5, 1.0]], np.float32)
    message = mono_to_image(confidence, header)
    assert (message.encoding, message.header) == ('32FC1', header)
    np.testing.assert_array_equal(np.frombuffer(message.data, np.float32), confidence.ravel())


def test_a_preview_keeps_its_colours(header):
    message = preview_to_image(RGB[..., ::-1], header)
    assert message.header == header
    np.testing.assert_array_equal(image_to_rgb(message), RGB)
