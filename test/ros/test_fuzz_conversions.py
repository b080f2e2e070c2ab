"""Malformed messages through the conversions: ValueError or a right answer, nothing else."""

from contextlib import suppress
import math
import pickle
import struct

import cv2
from fuzzing import fuzz, mostly
from hypothesis import given
from hypothesis import strategies as st
from malformed_messages import (
    BYTES_OF_PIXEL,
    FORMATS,
    PICTURES,
    PNG_DEPTH,
    camera_infos,
    damaged,
    images,
    size_of_file,
)
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage

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

MAX_PIXELS = 64 * 64
DEPTH_BYTES = {'32FC1': '<f', '16UC1': '<H', 'mono16': '<H'}


def answer(convert, message, **more):
    """Return what the conversion makes of the message, None when it refuses it."""
    before = pickle.dumps(message)
    made = None
    with suppress(ValueError):
        made = convert(message, **more)
    assert pickle.dumps(message) == before
    return made


@fuzz(300)
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


@fuzz(300)
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


def check_size(data, shape):
    """Compare with height and width as another library reads them, if it reads the file."""
    assert size_of_file(data) in (None, (shape[1], shape[0]))
    assert shape[0] * shape[1] <= MAX_PIXELS


@fuzz(300)
@given(data=mostly(damaged(PICTURES), st.binary(max_size=200)), name=FORMATS)
def test_compressed_images_become_rgb_or_are_refused(data, name):
    message = CompressedImage(format=name, data=data)
    rgb = answer(compressed_to_rgb, message, max_pixels=MAX_PIXELS)
    if rgb is not None:
        assert (rgb.dtype, rgb.ndim, rgb.shape[2]) == (np.uint8, 3, 3)
        check_size(data, rgb.shape[:2])


@fuzz(300)
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


@fuzz(300)
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
