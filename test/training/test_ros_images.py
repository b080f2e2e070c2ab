"""Messages to arrays: known pixels, units, unknown depth, cameras, and broken messages."""

from __future__ import annotations

from dataclasses import replace
import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from llm_mde_core import Camera
from llm_mde_train.ros_images import (
    image_size,
    is_color,
    is_depth,
    to_camera,
    to_depth,
    to_rgb,
)

RGB = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [200, 100, 50]]], np.uint8)


def image(pixels: np.ndarray, encoding: str, *, pad: int = 0, **changes) -> SimpleNamespace:
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    fields = dict(
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=int(pixels.dtype.byteorder == '>'),
        step=rows.shape[1] + pad,
        data=np.pad(rows, ((0, 0), (0, pad)), constant_values=77).reshape(-1),
    )
    return SimpleNamespace(**fields | changes)


def compressed(data: bytes, format_name: str) -> SimpleNamespace:
    return SimpleNamespace(format=format_name, data=np.frombuffer(data, np.uint8))


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode('.png', pixels)[1].tobytes()


def with_alpha(rgb: np.ndarray) -> np.ndarray:
    return np.dstack([rgb, np.full(rgb.shape[:2], 9, np.uint8)])


@pytest.mark.parametrize(
    ('pixels', 'encoding'),
    [
        (RGB, 'rgb8'),
        (RGB[..., ::-1], 'bgr8'),
        (RGB[..., ::-1], '8UC3'),
        (with_alpha(RGB), 'rgba8'),
        (with_alpha(RGB[..., ::-1]), 'bgra8'),
    ],
)
@pytest.mark.parametrize('pad', [0, 5])
def test_colour_is_rgb_whatever_the_order_and_padding(pixels, encoding, pad):
    message = image(pixels, encoding, pad=pad)
    np.testing.assert_array_equal(to_rgb(message), RGB)
    assert is_color(message)
    assert not is_depth(message)


@pytest.mark.parametrize(
    ('pixels', 'encoding'),
    [
        (np.array([[7, 255]], np.uint8), 'mono8'),
        (np.array([[7 * 257, 65535]], np.uint16), 'mono16'),
        (np.array([[7 * 257, 65535]], '>u2'), 'mono16'),
    ],
)
def test_grey_becomes_three_equal_channels(pixels, encoding):
    message = image(pixels, encoding)
    assert to_rgb(message).tolist() == [[[7] * 3, [255] * 3]]
    assert not is_color(message)


@pytest.mark.parametrize(
    ('encoding', 'mosaic'),
    [
        ('bayer_rggb8', [[0, 1], [1, 2]]),
        ('bayer_bggr8', [[2, 1], [1, 0]]),
        ('bayer_gbrg8', [[1, 2], [0, 1]]),
        ('bayer_grbg8', [[1, 0], [2, 1]]),
    ],
)
def test_bayer_mosaics_begin_where_ros_says(encoding, mosaic):
    colour = np.array([200, 100, 50], np.uint8)
    pixels = colour[np.tile(mosaic, (4, 4))]
    np.testing.assert_array_equal(
        to_rgb(image(pixels, encoding))[2:-2, 2:-2], colour + np.zeros((4, 4, 1), np.uint8)
    )


@pytest.mark.parametrize(('encoding', 'order'), [('yuv422', 'UYVY'), ('yuv422_yuy2', 'YUYV')])
def test_yuv_has_its_luma_where_its_name_says(encoding, order):
    luma = iter((60, 180))
    row = [next(luma) if letter == 'Y' else 128 for letter in order]
    rgb = to_rgb(image(np.array([row], np.uint8).reshape(1, 2, 2), encoding)).astype(int)
    assert rgb[0, 0].max() < 80 < 150 < rgb[0, 1].min()


@pytest.mark.parametrize(
    ('swapped', 'format_name'),
    [(False, 'jpeg'), (False, 'rgb8; jpeg compressed bgr8'), (True, 'rgb8; png compressed rgb8')],
)
def test_compressed_colour_follows_the_convention_of_image_transport(swapped, format_name):
    message = compressed(png(RGB if swapped else RGB[..., ::-1]), format_name)
    np.testing.assert_array_equal(to_rgb(message), RGB)
    assert is_color(message)


@pytest.mark.parametrize(
    'pixels',
    [
        np.array([[1.5, np.nan], [np.inf, 0.0]], np.float32),
        np.array([[1.5, -1.0], [-np.inf, np.nan]], '>f4'),
        np.array([[1500, 0], [0, 0]], np.uint16),
        np.array([[1500, 0], [0, 0]], '>u2'),
    ],
)
def test_depth_is_metres_and_unknown_is_nan(pixels):
    message = image(pixels, '32FC1' if pixels.dtype.kind == 'f' else '16UC1', pad=4)
    depth_m = to_depth(message)
    assert depth_m.dtype == np.float32
    np.testing.assert_array_equal(depth_m, np.float32([[1.5, np.nan], [np.nan, np.nan]]))
    assert is_depth(message)


@pytest.mark.parametrize('header', [b'', struct.pack('<Iff', 0, 0.0, 0.0)])
def test_compressed_millimetres(header):
    data = header + png(np.array([[1500, 0]], np.uint16))
    message = compressed(data, '16UC1; compressedDepth png')
    np.testing.assert_array_equal(to_depth(message), np.float32([[1.5, np.nan]]))
    assert is_depth(message)
    assert not is_color(message)


def test_compressed_metres_are_quantised_in_inverse_depth():
    a, b = 100.0 * 101.0, 1.0 - 101.0 * 100.0 / 10.0  # of compressed_depth_image_transport
    depth_m = np.array([[0.5, 3.0, 9.5]])
    codes = np.hstack([np.rint(a / depth_m + b), [[0]]]).astype(np.uint16)
    message = compressed(struct.pack('<Iff', 0, a, b) + png(codes), '32FC1; compressedDepth png')
    np.testing.assert_allclose(to_depth(message)[:, :3], depth_m, rtol=2e-3)
    assert np.isnan(to_depth(message)[0, 3])


@pytest.mark.parametrize(
    ('read', 'message', 'sentence'),
    [
        (to_rgb, image(RGB, 'lab8'), "encoding 'lab8'"),
        (to_depth, image(RGB, 'rgb8'), "encoding 'rgb8'"),
        (to_rgb, image(RGB, 'rgb8', data=np.zeros(5, np.uint8)), 'has 5 bytes'),
        (to_rgb, image(RGB, 'rgb8', step=3), 'step 3'),
        (to_rgb, image(RGB, 'rgb8', height=0, data=np.zeros(0, np.uint8)), '2 x 0 pixels'),
        (to_rgb, compressed(b'hello', 'jpeg'), 'neither JPEG nor PNG'),
        (to_rgb, compressed(b'', 'jpeg'), 'neither JPEG nor PNG'),
        (to_depth, compressed(b'hello', '16UC1; compressedDepth rvl'), 'only png'),
        (to_depth, compressed(png(RGB), '16UC1; compressedDepth png'), 'uint8'),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(read, message, sentence):
    with pytest.raises(ValueError, match=sentence):
        read(message)


def test_a_picture_too_large_for_memory_is_refused_before_it_is_decoded():
    _, png = cv2.imencode('.png', np.zeros((4200, 4000), np.uint8))
    message = SimpleNamespace(format='png', data=png)
    for decode in (to_rgb, image_size):
        with pytest.raises(ValueError, match='4000 x 4200 pixels is refused as too large'):
            decode(message)


def info(camera: Camera, *, capitals: bool = False, p_fx: float | None = None, **changes):
    matrix = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
    projection = np.column_stack([matrix, np.zeros(3)])
    projection[0, 0] = camera.fx if p_fx is None else p_fx
    arrays = {'d': np.array(camera.distortion), 'k': matrix.ravel(), 'p': projection.ravel()}
    if capitals:
        arrays = {name.upper(): value for name, value in arrays.items()}
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    fields = dict(
        header=SimpleNamespace(frame_id='eye'),
        width=camera.width,
        height=camera.height,
        distortion_model=camera.distortion_model,
        binning_x=0,
        binning_y=0,
        roi=roi,
    )
    return SimpleNamespace(**fields | arrays | changes)


CAMERA = Camera(width=64, height=48, fx=60.0, fy=61.0, cx=31.0, cy=24.0)
BENT = replace(CAMERA, distortion_model='plumb_bob', distortion=(0.1, 0.0, 0.0, 0.0, 0.0))


@pytest.mark.parametrize('capitals', [False, True])
def test_camera_of_ros_2_and_of_ros_1(capitals):
    assert to_camera(info(CAMERA, capitals=capitals), rectified=False) == CAMERA
    assert to_camera(info(BENT, capitals=capitals), rectified=False) == BENT


def test_projection_holds_for_rectified_images():
    assert to_camera(info(BENT, p_fx=55.0), rectified=True) == replace(CAMERA, fx=55.0)
    assert to_camera(info(BENT, p_fx=55.0), rectified=False) == BENT
    assert to_camera(info(CAMERA, p_fx=55.0), rectified=False).fx == 55.0
    assert to_camera(info(CAMERA, p_fx=0.0), rectified=False).fx == 60.0  # P is not filled in


def test_lens_models_of_drivers_are_named_as_ours():
    fisheye = info(BENT, distortion_model='fisheye', d=np.array([0.1, 0, 0, 0]))
    assert to_camera(fisheye, rectified=False).distortion_model == 'equidistant'
    eight = info(BENT, distortion_model='plumb_bob', d=np.full(8, 0.1))
    assert to_camera(eight, rectified=False).distortion_model == 'rational_polynomial'


def test_region_of_interest_and_binning():
    roi = SimpleNamespace(x_offset=10, y_offset=4, width=40, height=32)
    camera = to_camera(info(CAMERA, roi=roi, binning_x=2, binning_y=2), rectified=False)
    assert camera == Camera(width=20, height=16, fx=30.0, fy=30.5, cx=10.25, cy=9.75)


def test_uncalibrated_camera_is_refused():
    blank = info(CAMERA, k=np.zeros(9), p=np.zeros(12))
    with pytest.raises(ValueError, match="frame 'eye' is uncalibrated"):
        to_camera(blank, rectified=False)


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'p_fx': 0.06}, "frame 'eye' is implausible for 64 x 48 pixels: fx=0.06"),
        ({'p_fx': 600.0}, 'implausible'),
        ({'p_fx': 0.0, 'k': np.array([60, 0, 0, 0, 61, 0, 31, 24, 1.0])}, 'last row 31 24 1 in K'),
        ({'p': np.array([60, 0, 31, 0, 0, 61, 24, 0, 0, 0, 2.0, 0])}, 'last row 0 0 2 0 in P'),
    ],
)
def test_a_calibration_that_no_camera_has_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        to_camera(info(CAMERA, **changes), rectified=False)
