"""What another sensor of the robot measures, as depth in pixels of the camera."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from sensor_msgs.msg import Image, LaserScan, PointCloud2

from llm_mde_core.geometry import Camera, back_project, project
from llm_mde_ros.conversions import cloud_to_points, image_to_depth

Reference = Image | LaserScan | PointCloud2
MAX_POINTS = 5000  # of a frame: enough to judge depth by, little to compute
MAX_CANDIDATES = 20_000  # for those
VIEW_MARGIN = 1.02  # times as wide as the camera's view is what may be in it
GRID_COLUMNS = 160  # of the grid in which hidden points are looked for
REACH = 6  # of its cells; so far apart are the points of a lidar
SEPARATE = 1.2  # times farther is another surface


class PixelDepths(NamedTuple):
    """Depth in some pixels of an image, each pixel once."""

    rows: np.ndarray  # int64 (N,)
    columns: np.ndarray  # int64 (N,)
    depth_m: np.ndarray  # float32 (N,), metres along the camera's optical axis


def reference_to_points(message: Reference, camera: Camera | None) -> np.ndarray:
    """
    Return the points of a message, float64 (N, 3), metres in the frame of its header.

    camera: that of a depth image, of any size; scans and clouds need none. ValueError with a
    sentence when the message cannot be used.
    """
    if isinstance(message, LaserScan):
        return scan_to_points(message)
    if isinstance(message, PointCloud2):
        return cloud_to_measured_points(message)
    if camera is None:
        raise ValueError(
            'there is no camera_info of the depth image: publish it beside the image, or '
            'register depth to the colour image'
        )
    return depth_image_to_points(message, camera)


def scan_to_points(scan: LaserScan) -> np.ndarray:
    """
    Return the points that a scan hit, float64 (N, 3), z = 0.

    Ranges that are not finite (REP 117) or outside of range_min to range_max hit nothing. The
    robot's motion during the scan is not taken out.
    """
    for name in ('angle_min', 'angle_increment', 'range_min'):
        if not math.isfinite(getattr(scan, name)):
            raise ValueError(f'scan has {name} {getattr(scan, name)}, expected a number')
    if not 0 <= scan.range_min < scan.range_max:
        raise ValueError(
            f'scan has range_min {scan.range_min:g} and range_max {scan.range_max:g}, expected '
            '0 or more and something greater'
        )
    ranges = np.array(scan.ranges, np.float64)
    hit = np.isfinite(ranges) & (ranges > 0)
    hit &= (ranges >= scan.range_min) & (ranges <= scan.range_max)
    angles = scan.angle_min + scan.angle_increment * np.flatnonzero(hit)
    x, y = np.cos(angles), np.sin(angles)
    return np.stack([x, y, np.zeros_like(x)], axis=1) * ranges[hit, None]


def cloud_to_measured_points(cloud: PointCloud2) -> np.ndarray:
    """Return the finite points of a cloud, float64 (N, 3); many lidars say 0 0 0 for no echo."""
    points = cloud_to_points(cloud)[0].reshape(-1, 3).astype(np.float64)
    return points[np.isfinite(points).all(axis=1) & points.any(axis=1)]


def depth_image_to_points(image: Image, camera: Camera) -> np.ndarray:
    """Return points of a depth image, float64 (N, 3) in its optical frame, at most MAX_POINTS."""
    depth_m = image_to_depth(image)
    height, width = depth_m.shape
    if width * camera.height != height * camera.width:
        raise ValueError(
            f'the depth image has {width}x{height} pixels, its camera {camera.width}x'
            f'{camera.height}: another shape'
        )
    camera = camera.resized(width=width, height=height)
    stride = math.ceil(math.sqrt(depth_m.size / MAX_POINTS))
    points = back_project(depth_m[::stride, ::stride], camera.strided(stride))
    return points[np.isfinite(points[..., 2])].astype(np.float64)


def seen_by(camera: Camera, points: np.ndarray) -> PixelDepths:
    """
    Return the depth of points, (N, 3) in the camera's optical frame, in the pixels that see them.

    Points out of view are left out; of several in one pixel the nearest stays, and none stays
    that only shows through between points of something nearer.
    """
    points = _thinned(points[_may_be_in_view(points, camera)], MAX_CANDIDATES)
    pixels = np.rint(project(points, camera))
    last = camera.width - 1, camera.height - 1
    inside = ((pixels >= 0) & (pixels <= last)).all(axis=1)  # NaN is not
    columns, rows = pixels[inside].astype(np.int64).T
    depth_m = points[inside, 2].astype(np.float32)
    nearest_first = np.argsort(depth_m, kind='stable')
    index = (rows * camera.width + columns)[nearest_first]
    index, first = np.unique(index, return_index=True)
    rows, columns = np.divmod(index, camera.width)
    depth_m = depth_m[nearest_first][first]
    visible = np.flatnonzero(~_shows_through(rows, columns, depth_m, camera))
    kept = _thinned(visible, MAX_POINTS)
    return PixelDepths(rows[kept], columns[kept], depth_m[kept])


def _may_be_in_view(points: np.ndarray, camera: Camera) -> np.ndarray:
    """Tell, cheaply, which points are ahead and within the widest rays: bool (N,)."""
    widest = VIEW_MARGIN * camera.widest() + 1 / camera.focal_px
    reach = np.abs(points[:, :2]) <= widest * points[:, 2:]
    return reach.all(axis=1) & (points[:, 2] > 0)


def _thinned(values: np.ndarray, count: int) -> np.ndarray:
    """Return every n-th of the values, at most so many."""
    return values[:: max(1, math.ceil(len(values) / count))]


def _shows_through(
    rows: np.ndarray, columns: np.ndarray, depth_m: np.ndarray, camera: Camera
) -> np.ndarray:
    """
    Tell which depths have something nearer on two opposite sides: bool (N,).

    Points of a sensor that stands elsewhere are sparse, so that what the camera cannot see for
    something near appears between them. A floor is nearer on one side only.
    """
    cell_px = max(1, round(camera.width / GRID_COLUMNS))
    row, column = rows // cell_px + REACH, columns // cell_px + REACH
    shape = (camera.height - 1) // cell_px + 1, (camera.width - 1) // cell_px + 1
    nearest = np.full(np.add(shape, 2 * REACH), np.inf, np.float32)
    np.minimum.at(nearest, (row, column), depth_m)

    def towards(down: int, right: int) -> np.ndarray:
        """Return the nearest depth of the next cells in a direction, (N,)."""
        steps = range(1, REACH + 1)
        return np.min([nearest[row + k * down, column + k * right] for k in steps], axis=0)

    beside = np.maximum(towards(0, -1), towards(0, 1))
    over_and_under = np.maximum(towards(-1, 0), towards(1, 0))
    return depth_m > SEPARATE * np.minimum(beside, over_and_under)
