"""Depth of one camera on the pixel grid of another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
import math
from typing import Any

import cv2
import numpy as np

from llm_mde_core import Camera
from llm_mde_core.geometry import back_project

MARGIN = 1.02  # of the colour camera's view: lens models fold far points back into the image
LARGEST_BLOCK_PX = 8


@dataclass(frozen=True)
class Registration:
    """Where a depth camera stands, seen from the colour camera."""

    depth_camera: Camera
    color_camera: Camera
    depth_to_color: tuple[tuple[float, ...], ...]  # 4 rows of 4: moves points, metres

    def apply(self, depth_m: np.ndarray) -> np.ndarray:
        """
        Return the depth (H, W) that the colour camera sees, float32 metres, NaN where unknown.

        Each depth pixel covers as many colour pixels as it is wide there; of several surfaces in
        one pixel the nearest is kept.
        """
        source = back_project(depth_m, self.depth_camera).reshape(-1, 3).astype(np.float64)
        source = source[np.isfinite(source[:, 2])]
        move = np.array(self.depth_to_color)
        points = source @ move[:3, :3].T + move[:3, 3]
        color, depth = self.color_camera, self.depth_camera
        seen = points[:, 2] > 0
        seen &= (np.abs(points[:, :2]) <= MARGIN * color.widest() * points[:, 2:]).all(axis=1)
        source, points = source[seen], points[seen]

        result = np.full((color.height, color.width), np.nan, np.float32)
        if len(points):
            larger = np.array([color.fx / depth.fx, color.fy / depth.fy])
            sizes = np.ceil(larger * (source[:, 2:] / points[:, 2:]) - 0.01)
            sizes = sizes.clip(1, LARGEST_BLOCK_PX).astype(np.int64)
            _paint(result, project(points, color), points[:, 2].astype(np.float32), sizes)
        return result


def _paint(image: np.ndarray, pixels: np.ndarray, depths: np.ndarray, sizes: np.ndarray) -> None:
    """Lay blocks of sizes (N, 2), columns and rows, around pixels (N, 2); the nearest win."""
    height, width = image.shape
    farthest_first = np.argsort(-depths)  # of values set twice, the last one stays
    pixels, depths, sizes = pixels[farthest_first], depths[farthest_first], sizes[farthest_first]
    corners = np.rint(pixels - (sizes - 1) / 2).astype(np.int64)
    for offset in np.ndindex(*sizes.max(axis=0)):
        x, y = (corners + offset).T
        drawn = (offset < sizes).all(axis=1) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        layer = np.full_like(image, np.nan)
        layer[y[drawn], x[drawn]] = depths[drawn]
        np.fmin(image, layer, out=image)  # of NaN and a number, the number


def project(points: np.ndarray, camera: Camera) -> np.ndarray:
    """Return the pixels (N, 2) where a camera sees points (N, 3) in front of it."""
    matrix = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
    still = np.zeros(3)
    lens = np.array(camera.distortion)
    if camera.distortion_model == 'equidistant':
        pixels, _ = cv2.fisheye.projectPoints(points[:, None], still, still, matrix, lens)
    else:
        pixels, _ = cv2.projectPoints(points[:, None], still, still, matrix, lens)
    return pixels.reshape(-1, 2)


def find_transform(
    transforms: Iterable[Any], *, source: str, target: str
) -> tuple[tuple[float, ...], ...] | None:
    """
    Return the matrix that moves points from one frame to another, None when nothing joins them.

    `transforms` are geometry_msgs/TransformStamped of /tf_static.
    """
    steps: dict[str, dict[str, np.ndarray]] = {}
    for transform in transforms:
        parent = transform.header.frame_id.lstrip('/')
        child = transform.child_frame_id.lstrip('/')
        move = _matrix(transform.transform)
        steps.setdefault(child, {})[parent] = move
        steps.setdefault(parent, {})[child] = np.linalg.inv(move)
    known = {source: np.eye(4)}
    fresh = [source]
    while fresh and target not in known:
        frame = fresh.pop()
        for neighbour, move in steps.get(frame, {}).items():
            if neighbour not in known:
                known[neighbour] = move @ known[frame]
                fresh.append(neighbour)
    if target not in known:
        return None
    return tuple(tuple(float(value) for value in row) for row in known[target])


def _matrix(transform: Any) -> np.ndarray:
    """Return the 4 x 4 matrix of a geometry_msgs/Transform, which moves child to parent."""
    move, turn = transform.translation, transform.rotation
    axis = np.array([turn.x, turn.y, turn.z])
    half = math.atan2(float(np.linalg.norm(axis)), turn.w)
    length = float(np.linalg.norm(axis))
    angle_axis = axis / length * 2 * half if length > 0 else np.zeros(3)
    result = np.eye(4)
    result[:3, :3] = cv2.Rodrigues(angle_axis)[0]
    result[:3, 3] = move.x, move.y, move.z
    return result
