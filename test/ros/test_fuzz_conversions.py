"""
Malformed messages through the conversions: ValueError or a right answer, nothing else.

FUZZ_EXAMPLES=10000 tries so many for each test, others at every run; without it the same few.
"""

from contextlib import suppress
from datetime import timedelta
from io import BytesIO
import math
import os
import pickle
import struct
import zlib

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
from PIL import Image as Picture
from PIL import UnidentifiedImageError
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from llm_mde_core.geometry import Camera
from llm_mde_ros.conversions import (
    camera_from_info,
    camera_to_info,
    compressed_depth_to_depth,
    compressed_to_rgb,
    image_to_depth,
    image_to_rgb,
    rectified_info,
)
from llm_mde_ros.image_messages import COLOR_ENCODINGS

WANTED = os.environ.get('FUZZ_EXAMPLES')
fuzz = settings(
    max_examples=int(WANTED or 300),
    derandomize=WANTED is None,
    deadline=timedelta(seconds=20),  # none may hang
    database=None,
    print_blob=True,
)

MAX_PIXELS = 64 * 64
UINT32 = st.integers(0, 2**32 - 1)
DEPTH_BYTES = {'32FC1': '<f', '16UC1': '<H', 'mono16': '<H'}
BYTES_OF_PIXEL = {
    **{'rgb8': 3, 'bgr8': 3, '8UC3': 3, 'rgba8': 4, 'bgra8': 4, '8UC4': 4, '32FC1': 4},
    **{'mono16': 2, '16UC1': 2, 'yuv422': 2, 'yuv422_yuy2': 2, 'uyvy': 2, 'yuyv': 2},
    **{f'bayer_{order}16': 2 for order in ('rggb', 'bggr', 'gbrg', 'grbg')},
}


def mostly(usual, other):
    """Return a strategy that takes the other one in a sixth of the draws."""
    return st.sampled_from([usual] * 5 + [other]).flatmap(lambda chosen: chosen)


SIDE = mostly(st.integers(0, 12), UINT32)


@st.composite
def images(draw, encodings):
    """Return images that are right, or nearly: one or another field is not what it should be."""
    encoding = draw(mostly(st.sampled_from(encodings), st.text(max_size=8)))
    height, width = draw(SIDE), draw(SIDE)
    step = width * BYTES_OF_PIXEL.get(encoding, 1) + draw(mostly(st.just(0), st.integers(-2, 9)))
    step = draw(mostly(st.just(min(max(step, 0), 2**32 - 1)), UINT32))
    size = max(0, step * height + draw(mostly(st.just(0), st.integers(-9, 9))))
    noise = np.random.default_rng(draw(st.integers(0, 9)))
    return Image(
        height=height,
        width=width,
        encoding=encoding,
        step=step,
        is_bigendian=draw(st.sampled_from([0, 1, 255])),
        data=noise.bytes(min(size, 10_000)),
    )


def answer(convert, message, **more):
    """Return what the conversion makes of the message, None when it refuses it."""
    before = pickle.dumps(message)
    made = None
    with suppress(ValueError):
        made = convert(message, **more)
    assert pickle.dumps(message) == before
    return made


@fuzz
@given(message=images(COLOR_ENCODINGS))
def test_images_become_rgb_or_are_refused(message):
    rgb = answer(image_to_rgb, message)
    if rgb is None:
        return
    assert (rgb.shape, rgb.dtype) == ((message.height, message.width, 3), np.uint8)
    order = {'rgb8': (0, 1, 2), 'rgba8': (0, 1, 2), 'mono8': (0, 0, 0), '8UC1': (0, 0, 0)}
    order |= dict.fromkeys(('bgr8', 'bgra8', '8UC3', '8UC4'), (2, 1, 0))
    if message.encoding not in order:
        return
    size = BYTES_OF_PIXEL.get(message.encoding, 1)
    for row, column in ((0, 0), (message.height - 1, message.width - 1)):
        at = row * message.step + column * size
        assert tuple(rgb[row, column]) == tuple(
            message.data[at + i] for i in order[message.encoding]
        )


@fuzz
@given(message=images(tuple(DEPTH_BYTES)))
def test_images_become_metres_or_are_refused(message):
    depth_m = answer(image_to_depth, message)
    if depth_m is None:
        return
    check_metres(depth_m, (message.height, message.width))
    kind = DEPTH_BYTES[message.encoding]
    kind = kind.replace('<', '>') if message.is_bigendian else kind
    at = (message.height - 1) * message.step + (message.width - 1) * struct.calcsize(kind)
    (value,) = struct.unpack_from(kind, bytes(message.data), at)
    expected = value if kind.endswith('f') else np.float32(value) * np.float32(1e-3)
    is_known = math.isfinite(value) and value > 0
    np.testing.assert_array_equal(depth_m[-1, -1], np.float32(expected if is_known else np.nan))


def check_metres(depth_m, shape):
    assert (depth_m.shape, depth_m.dtype) == (shape, np.float32)
    known = depth_m[~np.isnan(depth_m)]
    assert np.isfinite(known).all()
    assert (known > 0).all()


def compressed(*makings):
    """Return the files of some pictures: small, so that a change hits what matters."""
    return [cv2.imencode(kind, pixels, options)[1].tobytes() for kind, pixels, *options in makings]


NOISE = np.random.default_rng(3)
COLOR = NOISE.integers(0, 256, (9, 14, 3), np.uint8)
DEEP = NOISE.integers(0, 65536, (9, 14), np.uint16)
GREY = COLOR[..., 0]
PNG_DEPTH = compressed(('.png', DEEP, cv2.IMWRITE_PNG_COMPRESSION, 0), ('.png', DEEP))
PICTURES = PNG_DEPTH + compressed(
    *[('.png', pixels) for pixels in (COLOR, np.dstack([COLOR, GREY]), GREY)],
    *[('.jpg', pixels) for pixels in (COLOR, GREY)],
    ('.jpg', COLOR, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    ('.jpg', COLOR, cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
)
WORDS = [b'\xff\xd0', b'\xff\xc0\0\x11\x08', b'\xff\xd9', b'\xff', b'IHDR', b'IDAT']
CHANGES = ['set', 'set', 'cut', 'double', 'put', 'size', 'end']


@st.composite
def damaged(draw, files):
    """Return a file in which bytes were set, cut out, doubled or put in, or the size changed."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
        at = draw(st.integers(0, 60) | st.integers(0, 2000)) % (len(data) + 1)
        part, change = data[at : at + draw(st.integers(1, 20))], draw(st.sampled_from(CHANGES))
        if change == 'size':
            sides = draw(st.tuples(*[UINT32] * 2) | st.tuples(*[st.integers(0, 300)] * 2))
            set_size(data, *sides)
        elif change == 'set':
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif change == 'cut':
            del data[at : at + len(part)]
        elif change == 'end':
            del data[at:]
        else:
            put_in = st.sampled_from(WORDS) | st.binary(max_size=20)
            data[at:at] = part if change == 'double' else draw(put_in)
    return with_checksums(data) if draw(st.booleans()) else bytes(data)


def set_size(data, width, height):
    """Announce another size in the header, if it is there still."""
    frame = data.find(b'\xff\xc0')
    if data.startswith(b'\x89PNG'):
        data[16:24] = struct.pack('>II', width, height)
    elif frame > 0:
        data[frame + 5 : frame + 9] = struct.pack('>HH', height % 2**16, width % 2**16)


def with_checksums(data):
    """Return a PNG whose chunks have the right checksums, so that their content is looked at."""
    data, at = bytearray(data), 8
    while data.startswith(b'\x89PNG') and at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], 'big')
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack('>I', zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(data)


FORMATS = st.sampled_from(
    ['jpeg', 'png', '', 'rgb8; jpeg compressed rgb8', '32FC1; compressedDepth png', '16UC1', 'rvl']
)


def check_size(data, shape):
    """Compare with height and width as another library reads them, if it reads the file."""
    with suppress(UnidentifiedImageError), Picture.open(BytesIO(data)) as picture:
        assert shape == (picture.height, picture.width)
    assert shape[0] * shape[1] <= MAX_PIXELS


@fuzz
@given(data=mostly(damaged(PICTURES), st.binary(max_size=200)), name=FORMATS)
def test_compressed_images_become_rgb_or_are_refused(data, name):
    message = CompressedImage(format=name, data=data)
    rgb = answer(compressed_to_rgb, message, max_pixels=MAX_PIXELS)
    if rgb is not None:
        assert (rgb.dtype, rgb.ndim, rgb.shape[2]) == (np.uint8, 3, 3)
        check_size(data, rgb.shape[:2])


@fuzz
@given(
    data=mostly(damaged(PNG_DEPTH), damaged(PICTURES)),
    name=FORMATS,
    constants=mostly(st.just((10100.0, -1009.0)), st.tuples(*[st.floats(width=32)] * 2)),
)
def test_compressed_depth_becomes_metres_or_is_refused(data, name, constants):
    header = struct.pack('<iff', 0, *constants) if '32FC1' in name else b''
    message = CompressedImage(format=name, data=header + data)
    depth_m = answer(compressed_depth_to_depth, message, max_pixels=MAX_PIXELS)
    if depth_m is not None:
        check_metres(depth_m, depth_m.shape)
        check_size(data, depth_m.shape)


NUMBERS = st.floats() | st.floats(-2000, 2000) | st.integers(-5, 5).map(float)
GOOD_K = [30.0, 0.0, 15.5, 0.0, 31.0, 11.5, 0.0, 0.0, 1.0]
GOOD_P = [28.0, 0.0, 15.0, -2.8, 0.0, 29.0, 11.0, 0.0, 0.0, 0.0, 1.0, 0.0]
MODELS = ['', 'plumb_bob', 'rational_polynomial', 'equidistant', 'fisheye', 'none', 'mei']


@st.composite
def nearly(draw, values):
    """Return the numbers with some of them replaced, or others altogether."""
    if draw(mostly(st.just(True), st.just(False))):
        return values
    changed = list(values)
    for _ in range(draw(st.integers(1, 3))):
        changed[draw(st.integers(0, len(values) - 1))] = draw(NUMBERS)
    return changed


@st.composite
def camera_infos(draw):
    roi = RegionOfInterest()
    if draw(st.integers(0, 3)) == 0:
        roi = RegionOfInterest(**{n: draw(SIDE) for n in ('x_offset', 'y_offset')})
        roi.width, roi.height = draw(SIDE), draw(SIDE)
    count = draw(st.sampled_from([4, 5, 8, 12, 14]) | st.integers(0, 15))
    scale = draw(st.sampled_from([0.02, 0.3]))
    lens = st.lists(
        mostly(st.floats(-scale, scale), NUMBERS)
        if draw(st.booleans())
        else st.floats(-scale, scale),
        min_size=count,
        max_size=count,
    )
    return CameraInfo(
        header=Header(frame_id='camera'),
        width=draw(mostly(st.just(32), SIDE)),
        height=draw(mostly(st.just(24), SIDE)),
        distortion_model=draw(mostly(st.sampled_from(MODELS), st.text(max_size=8))),
        d=draw(mostly(lens, st.just([]))),
        k=draw(nearly(GOOD_K)),
        r=draw(nearly(list(np.eye(3).ravel()))),
        p=draw(mostly(nearly(GOOD_P), st.just([0.0] * 12))),
        binning_x=draw(mostly(st.integers(0, 2), SIDE)),
        binning_y=draw(mostly(st.integers(0, 2), SIDE)),
        roi=roi,
    )


@fuzz
@given(info=camera_infos(), rectified=st.booleans())
def test_camera_infos_become_cameras_or_are_refused(info, rectified):
    if rectified:
        info = answer(rectified_info, info)
    camera = answer(camera_from_info, info)
    if camera is None:
        return
    published = camera_to_info(camera, info.header, info)
    numbers = [*published.k, *published.r, *published.p, *published.d]
    assert np.isfinite(numbers).all()
    again = camera_from_info(published)
    assert (again.width, again.height) == (camera.width, camera.height)
    for name in ('fx', 'fy', 'cx', 'cy'):
        assert getattr(again, name) == pytest.approx(getattr(camera, name), rel=1e-9, abs=1e-6)
    if camera.width * camera.height <= MAX_PIXELS:
        check_rays(camera)


def check_rays(camera: Camera):
    """Every ray that there is leads back to its pixel, by OpenCV's own lens models."""
    rays = np.full((1, 1, 2), np.nan)
    with suppress(ValueError):  # a lens that no computation can follow
        rays = camera.rays()
    assert not np.isinf(rays).any()
    rows, columns = np.nonzero(~np.isnan(rays).any(axis=2))
    if not len(rows):
        return
    points = np.column_stack([rays[rows, columns], np.ones(len(rows))]).astype(np.float64)
    k = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
    d = np.array(camera.distortion) if camera.distortion else np.zeros(5)
    if camera.distortion_model == 'equidistant':
        pixels, _ = cv2.fisheye.projectPoints(points[:, None], np.zeros(3), np.zeros(3), k, d)
    else:
        pixels, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), k, d)
    error_px = np.abs(pixels.reshape(-1, 2) - np.column_stack([columns, rows])).max()
    assert error_px < 0.05, (camera, error_px)
