"""
Image messages of a bag, as rosbags decodes them, to colour, depth and camera.

The node has its own converters on its own message classes; these read the messages of ROS 1 and
ROS 2 alike, without either being installed.
"""

from __future__ import annotations

from contextlib import suppress
import struct
from typing import Any

import cv2
import numpy as np

from llm_mde_core import Camera
from llm_mde_core.calibration import check_calibration
from llm_mde_core.picture_check import PNG_START, checked_picture

# Type, channels and cv2.cvtColor's code. OpenCV names a Bayer mosaic after the second row, from
# its second pixel, ROS after the first row; plain 8UC3 is BGR, as RViz shows it.
COLOR_LAYOUTS: dict[str, tuple[str, int, int | None]] = {
    'rgb8': ('u1', 3, None),
    'bgr8': ('u1', 3, cv2.COLOR_BGR2RGB),
    '8UC3': ('u1', 3, cv2.COLOR_BGR2RGB),
    'rgba8': ('u1', 4, cv2.COLOR_RGBA2RGB),
    'bgra8': ('u1', 4, cv2.COLOR_BGRA2RGB),
    '8UC4': ('u1', 4, cv2.COLOR_BGRA2RGB),
    'yuv422': ('u1', 2, cv2.COLOR_YUV2RGB_UYVY),
    'uyvy': ('u1', 2, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422_yuy2': ('u1', 2, cv2.COLOR_YUV2RGB_YUY2),
    'yuyv': ('u1', 2, cv2.COLOR_YUV2RGB_YUY2),
    'bayer_rggb8': ('u1', 1, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr8': ('u1', 1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg8': ('u1', 1, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg8': ('u1', 1, cv2.COLOR_BayerGB2RGB),
}
GREY_LAYOUTS: dict[str, tuple[str, int, int | None]] = {
    'mono8': ('u1', 1, cv2.COLOR_GRAY2RGB),
    '8UC1': ('u1', 1, cv2.COLOR_GRAY2RGB),
    'mono16': ('u2', 1, cv2.COLOR_GRAY2RGB),
}
DEPTH_TYPES = {'32FC1': 'f4', '16UC1': 'u2'}


def is_compressed(message: Any) -> bool:
    """Tell a CompressedImage from an Image."""
    return hasattr(message, 'format')


def is_depth(message: Any) -> bool:
    """Tell depth from colour, raw or compressed."""
    if is_compressed(message):
        return 'compresseddepth' in message.format.lower()
    return message.encoding in DEPTH_TYPES


def is_color(message: Any) -> bool:
    """Tell an image with colours, raw or compressed, from a grey one and from depth."""
    if is_compressed(message):
        return not is_depth(message) and not message.format.startswith('mono')
    return message.encoding in COLOR_LAYOUTS


def to_rgb(message: Any) -> np.ndarray:
    """
    Decode a colour or grey image: uint8 (H, W, 3) RGB.

    By image_transport's convention `... compressed rgb8` in a format says that red and blue were
    swapped in the file. Raises ValueError for an unknown encoding and for broken data.
    """
    if is_compressed(message):
        decoded = _decoded(message, message.data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        swapped = 'compressed rgb' in message.format
        return decoded if swapped else cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    layouts = COLOR_LAYOUTS | GREY_LAYOUTS
    if message.encoding not in layouts:
        raise ValueError(
            f'an image of encoding {message.encoding!r} is not read as colour; known are '
            f'{", ".join(layouts)}'
        )
    kind, channels, code = layouts[message.encoding]
    pixels = _pixels(message, kind, channels)
    rgb = pixels.copy() if code is None else cv2.cvtColor(pixels, code)
    return rgb if rgb.dtype == np.uint8 else cv2.convertScaleAbs(rgb, alpha=255 / 65535)


def to_depth(message: Any) -> np.ndarray:
    """
    Decode 32FC1 metres, 16UC1 millimetres or compressedDepth: float32 (H, W) metres, NaN unknown.

    Raises ValueError for another encoding and for broken data.
    """
    if is_compressed(message):
        return _decompressed_depth(message)
    if message.encoding not in DEPTH_TYPES and message.encoding != 'mono16':
        raise ValueError(
            f'an image of encoding {message.encoding!r} is not read as depth; known are '
            f'{", ".join(DEPTH_TYPES)} and mono16'
        )
    return _metres(_pixels(message, DEPTH_TYPES.get(message.encoding, 'u2'), 1))


def to_camera(info: Any, *, rectified: bool) -> Camera:
    """
    Return the camera of the images that belong to a CameraInfo.

    P holds for a rectified image, whatever distortion its CameraInfo keeps from the raw one, and
    where there is no distortion; otherwise K and D. Raises ValueError for an uncalibrated one, and
    for one that no camera has.
    """
    distortion = tuple(float(value) for value in _field(info, 'd'))
    projection = np.reshape(_field(info, 'p'), (3, 4))
    distorted = any(distortion) and not rectified
    use_projection = not distorted and projection[0, 0] != 0
    matrix = projection if use_projection else np.reshape(_field(info, 'k'), (3, 3))
    of = f'the camera_info of frame {info.header.frame_id!r}'
    if not np.any(matrix):
        raise ValueError(f'{of} is uncalibrated: its K is zero')
    whole = (0, 0, info.width, info.height)
    roi = info.roi
    cut = (roi.x_offset, roi.y_offset, roi.width, roi.height)
    left, top, width, height = cut if roi.width and roi.height else whole
    camera = Camera(
        width=width,
        height=height,
        fx=float(matrix[0, 0]),
        fy=float(matrix[1, 1]),
        cx=float(matrix[0, 2] - left),
        cy=float(matrix[1, 2] - top),
        distortion_model=_lens_model(info, distortion) if distorted else '',
        distortion=distortion if distorted else (),
    )
    bins = max(info.binning_x, 1), max(info.binning_y, 1)
    camera = camera.resized(width=width // bins[0], height=height // bins[1])
    check_calibration(camera, matrix, of=of)
    return camera


def image_size(message: Any) -> tuple[int, int]:
    """Return height and width, of a compressed image by decoding it."""
    if is_compressed(message):
        decoded = to_depth(message) if is_depth(message) else to_rgb(message)
        return decoded.shape[0], decoded.shape[1]
    return message.height, message.width


def _field(info: Any, name: str) -> np.ndarray:
    """Return d, k or p of a CameraInfo; ROS 1 has them in capitals."""
    return np.asarray(getattr(info, name) if hasattr(info, name) else getattr(info, name.upper()))


def _lens_model(info: Any, distortion: tuple[float, ...]) -> str:
    model = info.distortion_model
    if model == 'fisheye':
        return 'equidistant'
    if model in ('', 'plumb_bob', 'rational_polynomial'):  # one family, mixed up by some drivers
        return 'plumb_bob' if len(distortion) <= 5 else 'rational_polynomial'
    return model


def _pixels(message: Any, kind: str, channels: int) -> np.ndarray:
    """Return pixels (H, W) or (H, W, C) in native byte order, row padding removed."""
    wire = np.dtype(kind).newbyteorder('>' if message.is_bigendian else '<')
    row_bytes = message.width * channels * wire.itemsize
    whole = message.height > 0 and message.width > 0 and message.step >= row_bytes
    if not whole or len(message.data) != message.step * message.height:
        raise ValueError(
            f'an image of {message.width} x {message.height} pixels {message.encoding}, step '
            f'{message.step}, has {len(message.data)} bytes: it is truncated or mislabelled'
        )
    rows = np.asarray(message.data, np.uint8).reshape(message.height, message.step)
    pixels = np.ascontiguousarray(rows[:, :row_bytes]).view(wire).astype(kind, copy=False)
    shape = (message.height, message.width)
    return pixels.reshape(shape if channels == 1 else (*shape, channels))


def _decompressed_depth(message: Any) -> np.ndarray:
    """
    Decode the PNG of the compressedDepth transport.

    Its 12-byte header holds a word, then a and b, with which 32FC1 depth was quantised in 1/z.
    """
    data = bytes(message.data)
    start = data.find(PNG_START, 0, 32)
    if 'rvl' in message.format.lower() or start not in (0, 12):
        raise ValueError(
            f'compressed depth of format {message.format!r} is not read, only png; record the raw '
            'depth images'
        )
    pixels = _decoded(message, message.data[start:], cv2.IMREAD_UNCHANGED)
    if pixels.dtype != np.uint16 or pixels.ndim != 2:
        raise ValueError(
            f'compressed depth holds {pixels.dtype} {pixels.shape}, not 16 bits in one channel'
        )
    if start == 0 or not message.format.startswith('32FC1'):
        return _metres(pixels)
    a, b = struct.unpack_from('<ff', data, 4)
    depth_m = np.full(pixels.shape, np.nan, np.float32)
    np.divide(a, pixels - np.float32(b), out=depth_m, where=pixels > 0)
    return _metres(depth_m)


def _metres(pixels: np.ndarray) -> np.ndarray:
    """Turn float32 metres or uint16 millimetres into float32 metres, NaN where unknown."""
    depth_m = pixels / np.float32(1000 if pixels.dtype == np.uint16 else 1)
    depth_m[~(np.isfinite(depth_m) & (depth_m > 0))] = np.nan
    return depth_m


def _decoded(message: Any, data: np.ndarray, flags: int) -> np.ndarray:
    safe = checked_picture(bytes(data))
    decoded = None
    with suppress(cv2.error):  # of a side beyond OpenCV's own limit
        decoded = cv2.imdecode(np.frombuffer(safe, np.uint8), flags)
    if decoded is None:
        raise ValueError(
            f'a compressed image of format {message.format!r}, {len(data)} bytes, is broken'
        )
    return decoded
