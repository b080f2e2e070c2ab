"""sensor_msgs/CompressedImage -> colour and depth arrays."""

from contextlib import suppress
import math
import struct

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage

from llm_mde_core.picture_check import MAX_PIXELS, PNG_START, checked_picture
from llm_mde_ros.image_messages import pixels_to_depth


def compressed_to_rgb(msg: CompressedImage, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """
    Decode a JPEG or PNG of at most so many pixels: uint8 (H, W, 3) RGB.

    By image_transport's convention `... compressed rgb8` in the format says that red and blue
    were swapped in the file; without, and with `compressed bgr8`, the file is an ordinary one.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = _decode(bytes(msg.data), flags, max_pixels)
    if 'compressed rgb' in msg.format:
        return decoded
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def compressed_depth_to_depth(msg: CompressedImage, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """
    Decode a depth PNG of the compressedDepth transport: float32 (H, W) metres, NaN unknown.

    Its 12-byte header holds a word, then a and b, with which 32FC1 depth was quantised in 1/z:
    a is positive and b, which is 1 - a / farthest depth, below 1.
    """
    if 'rvl' in msg.format.lower():
        raise ValueError(f'compressed depth of format {msg.format!r} is not supported, only png')
    data = bytes(msg.data)
    start = data.find(PNG_START)
    if start not in (0, 12):
        raise ValueError(f'compressed depth of format {msg.format!r} holds no png image')
    pixels = _decode(data[start:], cv2.IMREAD_UNCHANGED, max_pixels)
    if pixels.dtype != np.uint16 or pixels.ndim != 2:
        raise ValueError(
            f'compressed depth holds {pixels.dtype} pixels of shape {pixels.shape}, '
            'expected 16 bits in one channel'
        )
    if start == 0 or not msg.format.startswith('32FC1'):
        return pixels_to_depth(pixels)
    a, b = struct.unpack_from('<ff', data, 4)
    if not (0 < a < math.inf and -math.inf < b < 1):
        raise ValueError(f'compressed depth of 32FC1 is quantised with a = {a:g} and b = {b:g}')
    depth_m = np.full(pixels.shape, np.nan, np.float32)
    np.divide(a, pixels - np.float32(b), out=depth_m, where=pixels > 0)
    return pixels_to_depth(depth_m)


def _decode(data: bytes, flags: int, max_pixels: int) -> np.ndarray:
    data = checked_picture(data, max_pixels=max_pixels)
    decoded = None
    with suppress(cv2.error):  # older releases raise it for a side beyond their own limit
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if decoded is None:
        raise ValueError(f'compressed image of {len(data)} bytes is broken: it cannot be decoded')
    return decoded
