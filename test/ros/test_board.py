"""
A board two metres away, from the camera's messages to the node's cloud, without a real network.

What stands in for the network either measures the board in the picture, as one does with a ruler
at arm's length, or knows it; everything around it is the node's. The test has its own optics.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
import time
from typing import Any

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest
import torch
from torch import nn

from llm_mde_core import DepthEstimator, LLMMDEConfig
from llm_mde_core.model import LLMMDEOutput
from llm_mde_ros.conversions import cloud_to_points, image_to_depth
from llm_mde_ros.extrinsics import FrameTransforms
from llm_mde_ros.frame_counters import FrameCounters
from llm_mde_ros.frame_slot import Frame
from llm_mde_ros.frame_worker import FrameWorker
from llm_mde_ros.live_accuracy import LiveAccuracy
from llm_mde_ros.model_loading import LoadedModel
from llm_mde_ros.parameters import DepthNodeParameters
from llm_mde_ros.served_model import ServedModel

DISTANCE_M = 2.0
BOARD_M = 0.8  # of each side
CENTRE_M = (0.1, -0.05)  # right of the axis, and above it
NORMAL = np.array([0.3, -0.2, np.sqrt(1 - 0.3**2 - 0.2**2)])  # of a slanted board
TOLERANCE_M = 0.01


class StandIn(nn.Module):
    """Stands where the network does; `see` makes depth (H, W) of pixels and a focal length."""

    def __init__(self, see: Callable[[torch.Tensor, float], torch.Tensor]) -> None:
        super().__init__()
        self.config = LLMMDEConfig.from_preset('tiny')
        self.see = see

    def constants(self) -> None:
        """Return nothing: there is no language model."""

    def forward(
        self, pixel_values: torch.Tensor, focal_px: torch.Tensor, constants: None
    ) -> LLMMDEOutput:
        depth = self.see(pixel_values[0], float(focal_px))[None]
        return LLMMDEOutput(predicted_depth=depth, log_spread=torch.zeros_like(depth))


class Publishers:
    """Keeps the messages of one frame."""

    def __init__(self) -> None:
        self.sent: dict[str, Any] = {}
        self.done = Event()

    def subscribers(self) -> dict[str, int]:
        return {'depth/image': 1, 'points': 1}

    def publish(self, messages: dict[str, Any]) -> list[str]:
        self.sent = messages
        self.done.set()
        return []


def published(network: nn.Module, info: CameraInfo, grey: np.ndarray) -> dict[str, Any]:
    """Return what the node makes of a picture, uint8 (H, W), and its camera_info."""
    publishers = Publishers()
    model = ServedModel(cpu_fallback=lambda: False)
    model.serve(LoadedModel(DepthEstimator(network, device='cpu')))
    worker = FrameWorker(
        estimator=model,
        publishers=publishers,
        counters=FrameCounters(),
        accuracy=LiveAccuracy(FrameTransforms(None)),
        parameters=lambda: DepthNodeParameters(points_stride=1),
        now_ns=lambda: 0,
        warn=lambda _kind, sentence: pytest.fail(sentence),
    )
    height, width = grey.shape
    image = Image(height=height, width=width, encoding='mono8', step=width, data=grey.tobytes())
    worker.infos.add(info)
    worker.slot.put(Frame(image, received_s=time.monotonic()))
    try:
        assert publishers.done.wait(60)
    finally:
        worker.stop()
    return publishers.sent


def info_of(width: int, height: int, matrix: np.ndarray) -> CameraInfo:
    info = CameraInfo(width=width, height=height, k=matrix.ravel())
    info.p = np.column_stack([matrix, np.zeros(3)]).ravel()
    return info


def matrix_of(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def usual() -> tuple[CameraInfo, np.ndarray]:
    matrix = matrix_of(500.0, 500.0, 319.5, 239.5)
    return info_of(640, 480, matrix), matrix


def small() -> tuple[CameraInfo, np.ndarray]:
    """Return one whose images are enlarged for the network."""
    matrix = matrix_of(100.0, 100.0, 79.5, 59.5)
    return info_of(160, 120, matrix), matrix


def uneven() -> tuple[CameraInfo, np.ndarray]:
    """Return one with pixels that are not square, and a lens that is not in the middle."""
    matrix = matrix_of(500.0, 520.0, 300.0, 255.0)
    return info_of(640, 480, matrix), matrix


def binned() -> tuple[CameraInfo, np.ndarray]:
    """Return one that reads two by two pixels of a part of its sensor."""
    info = info_of(1280, 960, matrix_of(1000.0, 1000.0, 639.5, 479.5))
    info.binning_x = info.binning_y = 2
    info.roi = RegionOfInterest(x_offset=100, y_offset=60, width=1040, height=800)
    return info, matrix_of(500.0, 500.0, (640 - 100) / 2 - 0.5, (480 - 60) / 2 - 0.5)


def rectified() -> tuple[CameraInfo, np.ndarray]:
    """Return one of a rectified image: P is another camera than K."""
    matrix = matrix_of(450.0, 450.0, 310.0, 230.0)
    info, _ = usual()
    info.p = np.column_stack([matrix, np.zeros(3)]).ravel()
    return info, matrix


def picture_of_board(width: int, height: int, matrix: np.ndarray) -> np.ndarray:
    """Render a white board that faces the camera, before black: uint8 (H, W)."""

    def covered(size: int, axis: int) -> np.ndarray:
        """Return how much of each column or row the board covers."""
        edges_m = CENTRE_M[axis] + np.array([-0.5, 0.5]) * BOARD_M
        low, high = matrix[axis, axis] * edges_m / DISTANCE_M + matrix[axis, 2]
        pixels = np.arange(size)
        return (np.minimum(pixels + 0.5, high) - np.maximum(pixels - 0.5, low)).clip(0, 1)

    return np.rint(255 * np.outer(covered(height, 1), covered(width, 0))).astype(np.uint8)


def measure(pixels: torch.Tensor, focal_px: float) -> torch.Tensor:
    """Return the distance of a board of known size everywhere, as if it hung on a wall."""
    side_px = float(pixels.mean(dim=0).sum().sqrt())
    return torch.full(pixels.shape[1:], focal_px * BOARD_M / side_px)


@pytest.mark.parametrize('camera', [usual, small, uneven, binned, rectified])
def test_a_board_in_the_picture_is_where_it_was_and_as_large(
    camera: Callable[[], tuple[CameraInfo, np.ndarray]],
) -> None:
    info, matrix = camera()
    bins, part = max(info.binning_x, 1), info.roi if info.roi.width else info
    grey = picture_of_board(part.width // bins, part.height // bins, matrix)
    messages = published(StandIn(measure), info, grey)
    np.testing.assert_allclose(
        image_to_depth(messages['depth/image']), DISTANCE_M, atol=TOLERANCE_M
    )
    points, rgb = cloud_to_points(messages['points'])
    board = points[rgb[..., 0] > 127]
    pixel_m = DISTANCE_M / matrix[0, 0]
    np.testing.assert_allclose(board[:, 2], DISTANCE_M, atol=TOLERANCE_M)
    np.testing.assert_allclose(board[:, :2].mean(axis=0), CENTRE_M, atol=TOLERANCE_M)
    np.testing.assert_allclose(np.ptp(board[:, :2], axis=0) + pixel_m, BOARD_M, atol=1.1 * pixel_m)


LENSES = {
    'none': ('plumb_bob', [0.0] * 5, cv2.undistortPoints),
    'plumb_bob': ('plumb_bob', [-0.2, 0.05, 0.001, -0.002, 0.0], cv2.undistortPoints),
    'equidistant': ('equidistant', [0.05, -0.01, 0.002, 0.0], cv2.fisheye.undistortPoints),
}


@pytest.mark.parametrize('lens', LENSES)
def test_a_slanted_board_is_a_plane_two_metres_away_through_any_lens(lens: str) -> None:
    info, matrix = usual()
    info.distortion_model, info.d, undistort = LENSES[lens]

    def known(pixels: torch.Tensor, _focal_px: float) -> torch.Tensor:
        """Return the depth of the board in the network's own pixels, part of them padding."""
        rows, columns = np.indices(pixels.shape[1:])
        step = 640 / 197  # columns of the image in one of the network's: 500 px become 154
        image_px = np.stack([columns, rows], axis=-1).reshape(-1, 1, 2) * step + (step - 1) / 2
        rays = undistort(image_px, matrix, np.array(info.d)).reshape(*rows.shape, 2)
        depth = DISTANCE_M / (np.dstack([rays, np.ones(rows.shape)]) @ NORMAL)
        return torch.from_numpy(depth).float()

    messages = published(StandIn(known), info, np.zeros((480, 640), np.uint8))
    points = cloud_to_points(messages['points'])[0][4:-4, 4:-4].reshape(-1, 3)  # no border
    np.testing.assert_allclose(points @ NORMAL, DISTANCE_M, atol=TOLERANCE_M)
    solution = np.linalg.lstsq(points, np.ones(len(points)), rcond=None)[0]
    assert 1 / np.linalg.norm(solution) == pytest.approx(DISTANCE_M, abs=0.1 * TOLERANCE_M)
