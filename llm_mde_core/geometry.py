"""
Pinhole and fisheye cameras: pixels to rays, depth to points, depth to another size.

A pixel's centre has integer coordinates, so an image of width w spans -0.5 ... w - 0.5. Points are
in the optical frame of REP 103: x right, y down, z forward. Depth is metres along z (REP 118).
"""

from dataclasses import dataclass, replace
from functools import lru_cache
import math

import numpy as np
import numpy.typing as npt

from llm_mde_core.lens import COEFFICIENT_COUNTS, distort, undistort

FloatImage = npt.NDArray[np.float32]
PIXELS_AT_ONCE = 2**14  # undistorted; what that takes then fits into a cache of the CPU


@dataclass(frozen=True)
class Camera:
    """
    Intrinsics in pixels of the image they belong to.

    Without a distortion model the image is rectified. Coefficients are in OpenCV's order.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion_model: str = ''
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, 'distortion', tuple(float(value) for value in self.distortion))
        if self.width < 1 or self.height < 1:
            raise ValueError(f'camera size {self.width} x {self.height} must be positive')
        for name in ('fx', 'fy', 'cx', 'cy'):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f'camera {name} is {getattr(self, name)}, expected a number')
        if self.fx <= 0 or self.fy <= 0:
            raise ValueError(f'focal lengths fx={self.fx} and fy={self.fy} must be positive')
        if self.distortion_model not in COEFFICIENT_COUNTS:
            known = ', '.join(repr(model) for model in COEFFICIENT_COUNTS)
            raise ValueError(f'unknown distortion model {self.distortion_model!r}, known: {known}')
        counts = COEFFICIENT_COUNTS[self.distortion_model]
        if len(self.distortion) not in counts:
            raise ValueError(
                f'distortion model {self.distortion_model!r} has {len(self.distortion)} '
                f'coefficients, expected {" or ".join(map(str, counts))}'
            )
        if not all(map(math.isfinite, self.distortion)):
            raise ValueError(f'distortion coefficients {self.distortion} must be finite')

    @classmethod
    def from_hfov(cls, *, width: int, height: int, hfov_deg: float) -> 'Camera':
        """Make a rectified camera with square pixels from its horizontal field of view."""
        if not 0 < hfov_deg < 180:
            raise ValueError(f'horizontal field of view is {hfov_deg} degrees, expected 0 to 180')
        focal_px = width / 2 / math.tan(math.radians(hfov_deg) / 2)
        return cls(width, height, focal_px, focal_px, (width - 1) / 2, (height - 1) / 2)

    @property
    def focal_px(self) -> float:
        """Return the mean of both focal lengths."""
        return (self.fx + self.fy) / 2

    def resized(self, *, width: int, height: int) -> 'Camera':
        """Return the camera of the same view resampled to another size, both edges kept."""
        scale_x, scale_y = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * scale_x,
            fy=self.fy * scale_y,
            cx=(self.cx + 0.5) * scale_x - 0.5,
            cy=(self.cy + 0.5) * scale_y - 0.5,
        )

    def strided(self, stride: int) -> 'Camera':
        """Return the camera of `image[::stride, ::stride]`: pixels picked, not resampled."""
        return replace(
            self,
            width=-(-self.width // stride),
            height=-(-self.height // stride),
            fx=self.fx / stride,
            fy=self.fy / stride,
            cx=self.cx / stride,
            cy=self.cy / stride,
        )

    def rays(self) -> FloatImage:
        """
        Return x/z and y/z of every pixel, float32 (H, W, 2), read-only; the last two are kept.

        NaN where the lens model has no solution or looks 90 degrees or more to the side.
        """
        return _kept_rays(self)

    def widest(self) -> FloatImage:
        """Return the largest x/z and y/z of all rays, without signs: float32 (2,)."""
        return _widest(self)


def _make_rays(camera: Camera) -> FloatImage:
    x = (np.arange(camera.width) - camera.cx) / camera.fx
    y = (np.arange(camera.height) - camera.cy) / camera.fy
    result = np.empty((camera.height, camera.width, 2), np.float32)
    count = max(1, PIXELS_AT_ONCE // camera.width)
    for first in range(0, camera.height, count):
        rows = np.stack(np.meshgrid(x, y[first : first + count]), axis=-1)  # (rows, W, 2)
        rays = undistort(rows.reshape(-1, 2), camera.distortion_model, camera.distortion)
        result[first : first + count] = rays.reshape(rows.shape)
    result.flags.writeable = False
    return result


# Of a node's camera and its strided one, or of two that are registered: 256 MB at 16 megapixels.
_kept_rays = lru_cache(maxsize=2)(_make_rays)


@lru_cache(maxsize=16)
def _widest(camera: Camera) -> FloatImage:
    return np.asarray(np.nanmax(np.abs(camera.rays()), axis=(0, 1)))


def back_project(depth_m: FloatImage, camera: Camera) -> FloatImage:
    """
    Return the points of a depth image, float32 (H, W, 3), metres in the optical frame.

    All three coordinates are NaN where depth is not finite and positive, or the pixel has no ray.
    """
    if depth_m.shape != (camera.height, camera.width):
        raise ValueError(
            f'depth of shape {depth_m.shape} does not belong to a camera of '
            f'{camera.height} rows and {camera.width} columns'
        )
    rays = camera.rays()
    z = np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, np.nan)
    points = np.empty((*depth_m.shape, 3), np.float32)
    for axis in (0, 1):
        points[..., axis] = rays[..., axis] * z
    points[..., 2] = z
    points[np.isnan(points[..., 0]), 2] = np.nan
    return points


def project(points: npt.NDArray[np.float64], camera: Camera) -> npt.NDArray[np.float64]:
    """
    Return the pixels, column and row, where points (N, 3) are seen: float64 (N, 2).

    Points are metres in the optical frame. NaN where they are not in front of the camera or its
    lens model has no pixel for them; other pixels may still lie beyond the image.
    """
    z = np.where(points[:, 2] > 1e-6, points[:, 2], np.nan)
    pixels = distort(points[:, :2] / z[:, None], camera.distortion_model, camera.distortion)
    return pixels * (camera.fx, camera.fy) + (camera.cx, camera.cy)


def resize_depth(depth_m: FloatImage, *, width: int, height: int) -> FloatImage:
    """
    Resample depth to another size, bilinearly in 1/z, float32 (height, width).

    1/z of a plane is linear in the pixel, so planes stay planes, and no value lies beyond its
    neighbours. A pixel whose nearest neighbour is unknown is NaN; unknown ones weigh nothing.
    """
    rows = _Samples.of(height, depth_m.shape[0])
    columns = _Samples.of(width, depth_m.shape[1])
    known = np.isfinite(depth_m) & (depth_m > 0)
    inverse = np.divide(1, depth_m, out=np.zeros(depth_m.shape, np.float32), where=known)
    result = _bilinear(inverse, rows, columns)
    if not known.all():
        weight = _bilinear(known.astype(np.float32), rows, columns)
        nearest = known[np.ix_(rows.nearest, columns.nearest)]
        result = np.divide(result, weight, out=np.full_like(result, np.nan), where=nearest)
    return np.asarray(1 / result, np.float32)


@dataclass(frozen=True)
class _Samples:
    """Where an axis is sampled: between `before` and `after`, `fraction` of the way."""

    before: npt.NDArray[np.intp]
    after: npt.NDArray[np.intp]
    fraction: npt.NDArray[np.float32]

    @classmethod
    def of(cls, size: int, source_size: int) -> '_Samples':
        centre = (np.arange(size) + 0.5) * (source_size / size) - 0.5
        centre = centre.clip(0, source_size - 1)
        before = np.floor(centre).astype(np.intp)
        after = np.minimum(before + 1, source_size - 1)
        return cls(before, after, (centre - before).astype(np.float32))

    @property
    def nearest(self) -> npt.NDArray[np.intp]:
        return np.where(self.fraction < 0.5, self.before, self.after)


def _bilinear(values: FloatImage, rows: _Samples, columns: _Samples) -> FloatImage:
    above, below = values[rows.before], values[rows.after]
    values = above + (below - above) * rows.fraction[:, None]
    left, right = values[:, columns.before], values[:, columns.after]
    return np.asarray(left + (right - left) * columns.fraction, np.float32)
