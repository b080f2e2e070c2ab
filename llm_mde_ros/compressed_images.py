"""sensor_msgs/CompressedImage -> colour and depth arrays."""

from contextlib import suppress
import math
import struct

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage

from llm_mde_ros.image_messages import pixels_to_depth

MAX_PIXELS = 2**24  # larger pictures are refused before they are decoded
MAX_SCANS = 64  # of a progressive JPEG, which has about ten; each costs as much as a picture
_PNG_START = b'\x89PNG\r\n\x1a\n'
_PNG_HEADER = b'\0\0\0\rIHDR'
_PNG_PICTURE = (b'IHDR', b'PLTE', b'IDAT', b'IEND')
_JPEG_START, _JPEG_SCAN, _JPEG_END = b'\xff\xd8', b'\xff\xda', b'\xff\xd9'
_JPEG_NO_FRAME_HEADER = (0xC4, 0xC8, 0xCC)  # of the markers C0 to CF; the others hold the size
# Decoders step over these two bytes; whoever reads a length after them looks for the size in
# another place than the decoder does, and a small picture there would let a huge one pass.
_JPEG_WITHOUT_LENGTH = (0x00, 0x01, *range(0xD0, 0xDA))


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
    start = data.find(_PNG_START)
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
    data, (width, height) = _checked(data)
    if width * height > max_pixels:
        raise ValueError(
            f'compressed image of {width} x {height} pixels is refused as too large: '
            f'{max_pixels} pixels are allowed'
        )
    decoded = None
    with suppress(cv2.error):  # older releases raise it for a side beyond their own limit
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if decoded is None:
        raise ValueError(f'compressed image of {len(data)} bytes is broken: it cannot be decoded')
    return decoded


def _checked(data: bytes) -> tuple[bytes, tuple[int, int]]:
    """Return what may be given to the decoder, and width and height that its header announces."""
    if data.startswith(_PNG_START):
        return _picture_of_png(data)
    if data.startswith(_JPEG_START):
        # Some releases of OpenCV would decode the half that is there.
        if _JPEG_END not in data[data.rfind(_JPEG_SCAN) :]:
            raise ValueError(f'compressed image is a JPEG cut off after {len(data)} bytes')
        if data.count(_JPEG_SCAN) > MAX_SCANS:
            raise ValueError(f'compressed image is a JPEG of more than {MAX_SCANS} scans')
        return data, _jpeg_size(data)
    raise ValueError(
        f'compressed image begins with {data[:8]!r}, which is neither JPEG nor PNG; '
        'use the compressed transport of image_transport, not theora or compressedDepth'
    )


def _picture_of_png(data: bytes) -> tuple[bytes, tuple[int, int]]:
    """
    Return a PNG without texts, profiles and animation, and its width and height.

    OpenCV 4.14 unpacks each text, and takes gigabytes for a chunk that says that it has them.
    """
    parts, position, kind = [_PNG_START], len(_PNG_START), b''
    while kind != b'IEND' and position + 12 <= len(data):  # length, kind and checksum
        length, kind = struct.unpack_from('>I4s', data, position)
        end = position + 12 + length
        if kind in _PNG_PICTURE:
            parts.append(data[position:end])
        position = end
    if kind != b'IEND' or position > len(data) or not data.startswith(_PNG_HEADER, 8):
        raise ValueError(f'compressed image of {len(data)} bytes is a broken or cut off PNG')
    return b''.join(parts), struct.unpack_from('>II', data, 16)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    position = len(_JPEG_START)
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in _JPEG_WITHOUT_LENGTH:
            break
        if 0xC0 <= marker <= 0xCF and marker not in _JPEG_NO_FRAME_HEADER:
            height, width = struct.unpack_from('>HH', data, position + 5)
            return width, height
        position += 2 + struct.unpack_from('>H', data, position + 2)[0]
    raise ValueError(f'compressed image of {len(data)} bytes is a broken JPEG without a size')
