"""Every byte of a cloud, against a reference that packs one point after the other."""

from __future__ import annotations

from dataclasses import replace
import math
import struct

import numpy as np
import pytest
from std_msgs.msg import Header
import torch

from llm_mde_core.geometry import Camera
from llm_mde_core.prediction import DepthPrediction
from llm_mde_ros.outputs import OutputSettings, make_outputs, within_limits

HEIGHT, WIDTH = 29, 37
RNG = np.random.default_rng(5)
RGB = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
CONFIDENCE = RNG.uniform(0, 1, (HEIGHT, WIDTH)).astype(np.float32)
PINHOLE = Camera(WIDTH, HEIGHT, fx=20.3, fy=21.7, cx=17.2, cy=14.9)
LENSES = {
    'pinhole': PINHOLE,
    'distorted': replace(
        PINHOLE, distortion_model='plumb_bob', distortion=(-0.3, 0.1, 0.001, -0.002, 0.0)
    ),
    'fisheye beyond 90 degrees': Camera(
        WIDTH, HEIGHT, 9.0, 9.0, 18.0, 14.0, 'equidistant', (0.01, 0.0, 0.0, 0.0)
    ),
}
UNKNOWN = np.float32(np.nan).tobytes()


def make_depth() -> np.ndarray:
    """Return depths, also on the limits, without a value, and of no sense."""
    depth_m = RNG.uniform(0.05, 9.5, (HEIGHT, WIDTH)).astype(np.float32)
    depth_m[3, 4:9] = np.nan, np.inf, -np.inf, 0.0, -2.0
    depth_m[15, 17:19] = 0.1, 6.0  # nearly on the optical axis
    return depth_m


def expected_points(
    depth_m: np.ndarray, camera: Camera, settings: OutputSettings
) -> list[bytes | None]:
    """Return the bytes of every point, None where there is none; float32 throughout."""
    step = settings.points_stride
    rays = camera.strided(step).rays()
    points: list[bytes | None] = []
    for row in range(0, HEIGHT, step):
        for column in range(0, WIDTH, step):
            z = depth_m[row, column]
            x, y = rays[row // step, column // step] * z
            squared_range = x * x + y * y + z * z
            known = (
                0 < z < np.inf
                and np.float32(settings.depth_min_m) <= z <= np.float32(settings.depth_max_m)
                and np.float32(settings.points_min_range_m**2) <= squared_range
                and squared_range <= np.float32(settings.points_max_range_m**2)
                and CONFIDENCE[row, column] >= np.float32(settings.points_min_confidence)
            )
            red, green, blue = map(int, RGB[row, column])
            color = struct.pack('=I', red << 16 | green << 8 | blue)
            point = struct.pack('=fff', x, y, z)
            points.append(point + color * settings.points_color if known else None)
            if not known and settings.points_organized:
                points[-1] = 3 * UNKNOWN + color * settings.points_color
    return points


@pytest.mark.parametrize('camera', LENSES.values(), ids=LENSES.keys())
@pytest.mark.parametrize(
    'change',
    [
        {},
        {'points_stride': 1},
        {'points_stride': 3, 'points_color': False},
        {'points_stride': 1, 'points_organized': False},
        {'points_stride': 1, 'points_min_confidence': 0.6, 'depth_max_m': 6.0},
        {'points_min_range_m': 2.5, 'points_max_range_m': 7.5, 'points_organized': False},
        {'points_stride': 1, 'points_min_range_m': 0.0, 'depth_min_m': 0.0},
        {'depth_max_m': math.inf, 'points_max_range_m': math.inf},
    ],
    ids=str,
)
@pytest.mark.filterwarnings('ignore:(invalid value|overflow) encountered')  # of the reference
def test_a_cloud_is_the_reference_byte_for_byte(camera: Camera, change: dict):
    depth_m, settings = make_depth(), replace(OutputSettings(), **change)
    prediction = DepthPrediction(torch.tensor(depth_m), lambda: torch.tensor(CONFIDENCE), {})
    message = make_outputs(
        within_limits(prediction, settings),
        rgb=RGB,
        camera=camera,
        header=Header(),
        wanted=['points'],
        settings=settings,
    )['points']
    expected = [point for point in expected_points(depth_m, camera, settings) if point]
    assert message.height * message.width == len(expected)
    assert bytes(message.data) == b''.join(expected)
    assert 0 < sum(point[:4] != UNKNOWN for point in expected) < HEIGHT * WIDTH
