"""sensor_msgs/Image <-> colour, depth, confidence and preview arrays."""

from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
import os
import subprocess
import sys
from typing import Any, NamedTuple

import cv2
import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from llm_mde_ros.message_data import IS_BIGENDIAN, fill_data, read_pixels


class _Layout(NamedTuple):
    dtype: type
    channels: int
    to_rgb: int | None  # of cv2.cvtColor


# OpenCV names a Bayer mosaic after the second row, from its second pixel; ROS after the first row.
_LAYOUTS = {
    'rgb8': _Layout(np.uint8, 3, None),
    'bgr8': _Layout(np.uint8, 3, cv2.COLOR_BGR2RGB),
    'rgba8': _Layout(np.uint8, 4, cv2.COLOR_RGBA2RGB),
    'bgra8': _Layout(np.uint8, 4, cv2.COLOR_BGRA2RGB),
    'mono8': _Layout(np.uint8, 1, cv2.COLOR_GRAY2RGB),
    'mono16': _Layout(np.uint16, 1, cv2.COLOR_GRAY2RGB),
    'yuv422': _Layout(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422_yuy2': _Layout(np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    'bayer_rggb8': _Layout(np.uint8, 1, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr8': _Layout(np.uint8, 1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg8': _Layout(np.uint8, 1, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg8': _Layout(np.uint8, 1, cv2.COLOR_BayerGB2RGB),
    'bayer_rggb16': _Layout(np.uint16, 1, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr16': _Layout(np.uint16, 1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg16': _Layout(np.uint16, 1, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg16': _Layout(np.uint16, 1, cv2.COLOR_BayerGB2RGB),
}
_SYNONYMS = {  # the generic ones in OpenCV's order of channels, as RViz shows them
    'uyvy': 'yuv422',
    'yuyv': 'yuv422_yuy2',
    '8UC1': 'mono8',
    '8UC3': 'bgr8',
    '8UC4': 'bgra8',
}
COLOR_ENCODINGS = (*_LAYOUTS, *_SYNONYMS)
CHECK_TIMEOUT_S = 30.0  # of cv_bridge, whose import alone can take seconds
_DEPTH_DTYPES = {'32FC1': np.float32, '16UC1': np.uint16, 'mono16': np.uint16}


def image_to_rgb(msg: Image) -> np.ndarray:
    """
    Decode a colour or grey image: uint8 (H, W, 3) RGB, in memory of its own.

    cv_bridge decodes where it is installed and sound, OpenCV otherwise.
    """
    encoding = _SYNONYMS.get(msg.encoding, msg.encoding)
    if encoding not in _LAYOUTS:
        raise ValueError(
            f'cannot take an image of encoding {msg.encoding!r} as colour; let the driver or '
            f'image_proc publish one of: {", ".join(COLOR_ENCODINGS)}'
        )
    layout = _LAYOUTS[encoding]
    pixels = read_pixels(msg, layout.dtype, layout.channels)
    if encoding.startswith('yuv') and msg.width % 2:
        raise ValueError(f'an image of encoding {msg.encoding} is {msg.width} wide, not even')
    bridge = sound_cv_bridge()
    if bridge is not None:
        from cv_bridge import CvBridgeError

        with suppress(CvBridgeError):  # an encoding that this release of it does not know
            return bridge.imgmsg_to_cv2(_pixels_to_image(pixels, Header(), encoding), 'rgb8')
    return decode_with_opencv(pixels, encoding)


def decode_with_opencv(pixels: np.ndarray, encoding: str) -> np.ndarray:
    """Convert plain pixels of an encoding to uint8 (H, W, 3) RGB, 16 bits scaled to 8."""
    to_rgb = _LAYOUTS[encoding].to_rgb
    rgb = pixels.copy() if to_rgb is None else cv2.cvtColor(pixels, to_rgb)
    return rgb if rgb.dtype == np.uint8 else cv2.convertScaleAbs(rgb, alpha=255 / 65535)


@lru_cache(maxsize=1)
def sound_cv_bridge() -> Any:
    """
    Return a CvBridge that decodes known pictures, or None; the first call takes about a second.

    One that was built for another NumPy or OpenCV, or for ROS 1, imports and then fails, lies or
    takes the process down: with NumPy 2, those of Humble and Jazzy do. So a process tries it, and
    one that hangs is none.
    """
    if find_spec('cv_bridge') is None:
        return None
    check = 'from llm_mde_ros import image_messages; image_messages.check_cv_bridge()'
    try:
        subprocess.run(
            [sys.executable, '-c', check],
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
            timeout=CHECK_TIMEOUT_S,
        )
    except subprocess.SubprocessError:  # it failed, or hangs
        return None
    from cv_bridge import CvBridge

    return CvBridge()


def check_cv_bridge() -> None:
    """Raise whatever it raises, or ValueError, unless cv_bridge decodes two known pictures."""
    from cv_bridge import CvBridge

    grey, bgr = np.array([[257, 514]], np.uint16), np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    for encoding, pixels in (('mono16', grey), ('bgr8', bgr)):
        decoded = CvBridge().imgmsg_to_cv2(_pixels_to_image(pixels, Header(), encoding), 'rgb8')
        if not np.array_equal(decoded, decode_with_opencv(pixels, encoding)):
            raise ValueError(f'cv_bridge decodes {encoding} to {decoded}')


def image_to_depth(msg: Image) -> np.ndarray:
    """Decode 32FC1 metres or 16UC1 millimetres: float32 (H, W) metres, NaN where unknown."""
    if msg.encoding not in _DEPTH_DTYPES:
        raise ValueError(
            f'cannot take an image of encoding {msg.encoding!r} as depth; expected one of: '
            f'{", ".join(_DEPTH_DTYPES)}'
        )
    return pixels_to_depth(read_pixels(msg, _DEPTH_DTYPES[msg.encoding], 1))


def pixels_to_depth(pixels: np.ndarray) -> np.ndarray:
    """Turn float32 metres or uint16 millimetres into float32 metres, NaN where unknown."""
    with np.errstate(invalid='ignore'):  # signalling NaN
        depth_m = pixels * np.float32(1e-3 if pixels.dtype == np.uint16 else 1)
    depth_m[~(np.isfinite(depth_m) & (depth_m > 0))] = np.nan
    return depth_m


def depth_to_image(depth_m: np.ndarray, header: Header, encoding: str = '32FC1') -> Image:
    """
    Encode metres, float32 (H, W) with NaN, by REP 118: 32FC1 or 16UC1 millimetres, 0 unknown.

    Millimetres are rounded; what 16 bits cannot hold, from 65.5355 m, is unknown as well.
    """
    if encoding == '32FC1':
        return mono_to_image(depth_m, header)
    if encoding != '16UC1':
        raise ValueError(f'unknown depth encoding {encoding!r}, expected 32FC1 or 16UC1')
    depth_mm = np.rint(depth_m * np.float32(1000))
    known = (depth_mm > 0) & (depth_mm <= np.iinfo(np.uint16).max)  # NaN is neither
    return _pixels_to_image(np.where(known, depth_mm, 0).astype(np.uint16), header, encoding)


def mono_to_image(values: np.ndarray, header: Header) -> Image:
    """Encode float32 (H, W) as 32FC1."""
    return _pixels_to_image(values.astype(np.float32, copy=False), header, '32FC1')


def preview_to_image(bgr: np.ndarray, header: Header) -> Image:
    """Encode uint8 (H, W, 3) BGR, what cv2.applyColorMap returns, as bgr8."""
    return _pixels_to_image(bgr, header, 'bgr8')


def _pixels_to_image(pixels: np.ndarray, header: Header, encoding: str) -> Image:
    height, width = pixels.shape[:2]
    image = Image(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(IS_BIGENDIAN),
        step=pixels.nbytes // height,
    )
    fill_data(image, pixels)
    return image
