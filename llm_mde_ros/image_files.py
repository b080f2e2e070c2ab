"""Images and videos in; depth, preview and cloud files out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from std_msgs.msg import Header

from llm_mde_core.estimator import DepthEstimator
from llm_mde_core.geometry import Camera, back_project
from llm_mde_ros.conversions import depth_to_image
from llm_mde_ros.outputs import OutputSettings, depth_to_preview, within_limits

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.pgm', '.tif', '.tiff', '.webp')


@dataclass(frozen=True)
class Lens:
    """What is known of the camera: a field of view, or the four intrinsics in pixels."""

    hfov_deg: float | None = None
    fx: float | None = None
    fy: float | None = None
    cx: float | None = None
    cy: float | None = None

    def __post_init__(self) -> None:
        given = [value is not None for value in (self.fx, self.fy, self.cx, self.cy)]
        if any(given) and not all(given):
            raise ValueError('fx, fy, cx and cy belong together: give all four of them.')
        if any(given) == (self.hfov_deg is not None):
            raise ValueError('Give either the field of view or fx, fy, cx and cy.')

    def camera(self, *, width: int, height: int) -> Camera:
        """Return the camera of an image of this size."""
        if self.hfov_deg is not None:
            return Camera.from_hfov(width=width, height=height, hfov_deg=self.hfov_deg)
        return Camera(width, height, fx=self.fx, fy=self.fy, cx=self.cx, cy=self.cy)


@dataclass(frozen=True)
class ImageSource:
    """Named images, read one at a time: `read` raises ValueError for a broken one."""

    images: Iterator[tuple[str, Callable[[], np.ndarray]]]  # uint8 (H, W, 3) RGB
    total: int | None  # unknown for some videos


def open_source(path: Path) -> ImageSource:
    """Open an image, a folder of images, or a video; ValueError when it is none of them."""
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise ValueError(f'The folder {path} holds no images ({", ".join(IMAGE_SUFFIXES)}).')
        return _image_files(files)
    if not path.exists():
        raise ValueError(f'{path} does not exist.')
    if cv2.haveImageReader(str(path)):
        return _image_files([path])
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise ValueError(f'{path} is neither an image nor a video that OpenCV can read.')
    total = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    return ImageSource(_video_frames(video, path.stem), total if total > 0 else None)


def _image_files(files: list[Path]) -> ImageSource:
    stems = [file.stem for file in files]
    names = [f.stem if stems.count(f.stem) == 1 else f.name.replace('.', '_') for f in files]
    readers = (partial(read_rgb, file) for file in files)
    return ImageSource(zip(names, readers, strict=True), len(files))


def read_rgb(path: Path) -> np.ndarray:
    """Read an image file: uint8 (H, W, 3) RGB, upright as its EXIF says."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError(f'{path} is no image that OpenCV can read.')
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _video_frames(
    video: cv2.VideoCapture, stem: str
) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    number = 0
    while True:
        good, bgr = video.read()
        if not good:
            return
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        yield f'{stem}_{number:06d}', lambda rgb=rgb: rgb
        number += 1


def infer_files(
    source: ImageSource,
    out: Path,
    *,
    estimator: DepthEstimator,
    lens: Lens,
    ply: bool = False,
    on_image: Callable[[int, int | None], None] = lambda done, total: None,
) -> tuple[int, list[str]]:
    """
    Write depth and preview, and a cloud if asked for, of every image into a folder.

    Returns how many images there were, and the sentences about those that could not be used.
    `on_image` is told how many of how many are done.
    """
    out.mkdir(parents=True, exist_ok=True)
    done, failures, size = 0, [], None
    for done, (name, read) in enumerate(source.images, start=1):
        try:
            rgb = read()
            size = size or rgb.shape
            if lens.fx is not None and rgb.shape != size:
                raise ValueError(f'{name} has another size than the image that fx is for.')
            camera = lens.camera(width=rgb.shape[1], height=rgb.shape[0])
            depth_m = within_limits(estimator.infer(rgb, camera), OutputSettings()).depth_m
        except ValueError as error:
            failures.append(str(error))
        else:
            write_depth(out / f'{name}_depth.png', depth_m)
            write_png(out / f'{name}_preview.png', depth_to_preview(depth_m, OutputSettings()))
            if ply:
                write_ply(out / f'{name}.ply', back_project(depth_m, camera), rgb)
        on_image(done, source.total)
    return done, failures


def write_depth(path: Path, depth_m: np.ndarray) -> None:
    """Write a 16-bit PNG in millimetres, 0 where unknown."""
    image = depth_to_image(depth_m, Header(), '16UC1')
    write_png(path, np.frombuffer(image.data, np.uint16).reshape(depth_m.shape))


def write_ply(path: Path, points: np.ndarray, rgb: np.ndarray) -> None:
    """Write the known points, float32 (H, W, 3) in metres, with their colours as binary PLY."""
    known = np.isfinite(points).all(axis=2)
    vertex = np.zeros(
        int(known.sum()),
        [*((axis, '<f4') for axis in 'xyz'), *((c, 'u1') for c in ('red', 'green', 'blue'))],
    )
    for channel, axis in enumerate('xyz'):
        vertex[axis] = points[known][:, channel]
    for channel, colour in enumerate(('red', 'green', 'blue')):
        vertex[colour] = rgb[known][:, channel]
    kinds = {'<f4': 'float', '|u1': 'uchar'}
    properties = [f'property {kinds[vertex[n].dtype.str]} {n}' for n in vertex.dtype.names]
    header = [
        'ply',
        'format binary_little_endian 1.0',
        'comment optical frame: x right, y down, z forward, metres',
        f'element vertex {len(vertex)}',
        *properties,
        'end_header',
    ]
    path.write_bytes('\n'.join(header).encode() + b'\n' + vertex.tobytes())


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write pixels as OpenCV has them; OSError when it cannot (cv2.imwrite hides a full disk)."""
    path.write_bytes(cv2.imencode('.png', pixels)[1].tobytes())
