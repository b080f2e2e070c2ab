"""The camera of the soak: good images of many kinds, bad ones of all kinds, its calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
import math
from random import Random

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from llm_mde_core.geometry import Camera
from llm_mde_ros.camera_info import camera_to_info

FRAME_ID = 'soak_camera_optical_frame'
SIZES = ((640, 480), (320, 240), (424, 240))
ENCODINGS = {'rgb8': 3, 'bgr8': 3, 'bgra8': 4, 'mono8': 1, 'yuv422_yuy2': 2, 'bayer_rggb8': 1}
HFOV_DEG = (55.0, 69.0, 87.0)
BARREL = (-0.1, 0.01, 0.0, 0.0, 0.0)
# A PNG of a few bytes that announces 1,048,575 x 1,048,575 pixels.
BOMB = (
    b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\x0f\xff\xff\0\x0f\xff\xff\x08\x02\0\0\0\0\0\0\0'
    b'\0\0\0\0IEND\0\0\0\0'
)


def _wrong_step(image: Image) -> None:
    image.step = image.width - 1


def _cut_off(image: Image) -> None:
    image.data = image.data[: len(image.data) // 2]


def _without_data(image: Image) -> None:
    image.data = b''


def _unknown_encoding(image: Image) -> None:
    image.encoding = 'rgb9000'


def _depth_in_place_of_colour(image: Image) -> None:
    image.encoding = '32FC1'


def _without_height(image: Image) -> None:
    image.height = 0


def _without_width(image: Image) -> None:
    image.width = 0


def _huge(image: Image) -> None:
    image.width, image.height, image.step = 2**31, 2**31, 2**32 - 1


def _another_size(image: Image) -> None:
    """Half as high as camera_info says, but for that an image as it should be."""
    image.height //= 2
    image.data = image.data[: image.height * image.step]


def _cut_off_file(image: CompressedImage) -> None:
    image.data = image.data[: len(image.data) // 2]


def _text(image: CompressedImage) -> None:
    image.data = b'404 Not Found'


def _bomb(image: CompressedImage) -> None:
    image.data = BOMB


def _no_file(image: CompressedImage) -> None:
    image.data = b''


BAD_IMAGES: tuple[Callable[[Image], None], ...] = (
    _wrong_step,
    _cut_off,
    _without_data,
    _unknown_encoding,
    _depth_in_place_of_colour,
    _without_height,
    _without_width,
    _huge,
    _another_size,
)
BAD_FILES: tuple[Callable[[CompressedImage], None], ...] = (_cut_off_file, _text, _bomb, _no_file)


def _nan(info: CameraInfo) -> None:
    info.k = [math.nan] * 9
    info.p = [math.nan] * 12


def _mirrored(info: CameraInfo) -> None:
    info.k[0] = info.p[0] = -info.k[0]


def _of_another_size(info: CameraInfo) -> None:
    info.width += 2


def _unknown_lens(info: CameraInfo) -> None:
    info.distortion_model, info.d = 'kaleidoscope', [0.1] * 5


def _infinite(info: CameraInfo) -> None:
    info.d = [math.inf] * 5


BAD_CALIBRATIONS: tuple[Callable[[CameraInfo], None], ...] = (
    _nan,
    _mirrored,
    _of_another_size,
    _unknown_lens,
    _infinite,
)


@dataclass(frozen=True)
class Picture:
    """What the camera is set to."""

    size: tuple[int, int] = SIZES[0]  # width, height
    encoding: str = 'bgr8'
    hfov_deg: float = HFOV_DEG[0]
    is_rectified: bool = True
    is_calibrated: bool = True


class SoakCamera:
    """Makes the messages; `picture` says of what kind, and the random numbers what is in them."""

    def __init__(self, random: Random) -> None:
        self.picture = Picture()
        self._random = random
        self._noise = np.random.default_rng(random.getrandbits(32)).bytes(8 * 2**20)

    def change(self, **what: object) -> None:
        """Set the camera to something else."""
        self.picture = replace(self.picture, **what)

    def image(self, stamp_ns: int) -> Image:
        """Return a good raw image."""
        (width, height), encoding = self.picture.size, self.picture.encoding
        step = width * ENCODINGS[encoding]
        return Image(
            header=_header(stamp_ns),
            width=width,
            height=height,
            encoding=encoding,
            step=step,
            data=self._bytes(step * height),
        )

    def file(self, stamp_ns: int) -> CompressedImage:
        """Return a good compressed image."""
        width, height = self.picture.size
        few = np.frombuffer(self._bytes(300), np.uint8).reshape(10, 10, 3)  # as smooth as a room
        kind = self._random.choice(('jpeg', 'png'))
        pixels = cv2.resize(few, (width, height))
        data = cv2.imencode(f'.{kind}', pixels, _fast(kind))[1].tobytes()
        return CompressedImage(
            header=_header(stamp_ns), format=f'bgr8; {kind} compressed bgr8', data=data
        )

    def calibration(self, stamp_ns: int) -> CameraInfo:
        """Return the good camera_info of the images, or that of a camera without one."""
        width, height = self.picture.size
        header = _header(stamp_ns)
        if not self.picture.is_calibrated:
            return CameraInfo(header=header, width=width, height=height)
        lens = Camera.from_hfov(width=width, height=height, hfov_deg=self.picture.hfov_deg)
        if not self.picture.is_rectified:
            lens = replace(lens, distortion_model='plumb_bob', distortion=BARREL)
        return camera_to_info(lens, header, None)

    def _bytes(self, count: int) -> bytes:
        start = self._random.randrange(len(self._noise) - count)
        return self._noise[start : start + count]


def _fast(kind: str) -> list[int]:
    return [cv2.IMWRITE_PNG_COMPRESSION, 1] if kind == 'png' else []


def _header(stamp_ns: int) -> Header:
    header = Header(frame_id=FRAME_ID)
    header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 10**9)
    return header
