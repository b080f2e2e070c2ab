"""sensor_msgs/CompressedImage -> colour and depth arrays."""

import struct

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage

from llm_mde_ros.image_messages import pixels_to_depth

MAX_PIXELS = 2**26  # larger pictures are refused before they are decoded
_PNG_START = b'\x89PNG\r\n\x1a\n'
_JPEG_START, _JPEG_SCAN, _JPEG_END = b'\xff\xd8', b'\xff\xda', b'\xff\xd9'
_JPEG_NO_FRAME_HEADER = (0xC4, 0xC8, 0xCC)  # of the markers C0 to CF; the others hold the size


def compressed_to_rgb(msg: CompressedImage) -> np.ndarray:
    """
    Decode a JPEG or PNG: uint8 (H, W, 3) RGB.

    By image_transport's convention `... compressed rgb8` in the format says that red and blue
    were swapped in the file; without, and with `compressed bgr8`, the file is an ordinary one.
    """
    decoded = _decode(bytes(msg.data), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if 'compressed rgb' in msg.format:
        return decoded
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def compressed_depth_to_depth(msg: CompressedImage) -> np.ndarray:
    """
    Decode a depth PNG of the compressedDepth transport: float32 (H, W) metres, NaN unknown.

    Its 12-byte header holds a word, then a and b, with which 32FC1 depth was quantised in 1/z.
    """
    if 'rvl' in msg.format.lower():
        raise ValueError(f'compressed depth of format {msg.format!r} is not supported, only png')
    data = bytes(msg.data)
    start = data.find(_PNG_START)
    if start not in (0, 12):
        raise ValueError(f'compressed depth of format {msg.format!r} holds no png image')
    pixels = _decode(data[start:], cv2.IMREAD_UNCHANGED)
    if pixels.dtype != np.uint16 or pixels.ndim != 2:
        raise ValueError(
            f'compressed depth holds {pixels.dtype} pixels of shape {pixels.shape}, '
            'expected 16 bits in one channel'
        )
    if start == 0 or not msg.format.startswith('32FC1'):
        return pixels_to_depth(pixels)
    a, b = struct.unpack_from('<ff', data, 4)
    depth_m = np.full(pixels.shape, np.nan, np.float32)
    np.divide(a, pixels - np.float32(b), out=depth_m, where=pixels > 0)
    return pixels_to_depth(depth_m)


def _decode(data: bytes, flags: int) -> np.ndarray:
    width, height = _picture_size(data)
    if width * height > MAX_PIXELS:
        raise ValueError(f'compressed image of {width} x {height} pixels is refused as too large')
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if decoded is None:
        raise ValueError(f'compressed image of {len(data)} bytes is broken: it cannot be decoded')
    return decoded


def _picture_size(data: bytes) -> tuple[int, int]:
    """Return width and height that the file's header announces."""
    if data.startswith(_PNG_START) and len(data) >= 24:
        return struct.unpack_from('>II', data, 16)
    if data.startswith(_JPEG_START):
        # Some releases of OpenCV would decode the half that is there.
        if _JPEG_END not in data[data.rfind(_JPEG_SCAN) :]:
            raise ValueError(f'compressed image is a JPEG cut off after {len(data)} bytes')
        return _jpeg_size(data)
    raise ValueError(
        f'compressed image begins with {data[:8]!r}, which is neither JPEG nor PNG; '
        'use the compressed transport of image_transport, not theora or compressedDepth'
    )


def _jpeg_size(data: bytes) -> tuple[int, int]:
    position = len(_JPEG_START)
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in _JPEG_NO_FRAME_HEADER:
            height, width = struct.unpack_from('>HH', data, position + 5)
            return width, height
        position += 2 + struct.unpack_from('>H', data, position + 2)[0]
    raise ValueError(f'compressed image of {len(data)} bytes is a broken JPEG without a size')
