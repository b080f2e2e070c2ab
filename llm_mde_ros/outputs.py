"""A depth prediction -> the messages of one frame: shared by the node and by replay."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
import math
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, PointCloud2
from std_msgs.msg import Header
import torch

from llm_mde_core.cloud import limit_depth, pixel_rays, project
from llm_mde_core.geometry import Camera
from llm_mde_core.prediction import DepthPrediction
from llm_mde_ros.conversions import (
    camera_to_info,
    depth_to_image,
    empty_cloud,
    fill_cloud,
    mono_to_image,
    packed_color,
    preview_to_image,
)

OUTPUT_TOPICS = ('depth/image', 'depth/camera_info', 'depth/preview', 'confidence', 'points')
DEPTH_ENCODINGS = ('32FC1', '16UC1')
PREVIEW_COLORMAPS = {
    name: getattr(cv2, f'COLORMAP_{name.upper()}')
    for name in ('turbo', 'inferno', 'magma', 'plasma', 'viridis', 'bone')
}


@dataclass(frozen=True)
class OutputSettings:
    """What the outputs are made like; these are the defaults of the node and of replay."""

    depth_encoding: str = '32FC1'
    depth_min_m: float = 0.1  # along Z; beyond the limits depth is unknown everywhere
    depth_max_m: float = 20.0
    preview_min_m: float = 0.3  # the warm or bright end of the colours
    preview_max_m: float = 8.0
    preview_colormap: str = 'turbo'
    points_color: bool = True
    points_organized: bool = True
    points_stride: int = 2
    points_range_enable: bool = True
    points_min_range_m: float = 0.1  # from the camera, not along Z
    points_max_range_m: float = 20.0
    points_confidence_enable: bool = True
    points_min_confidence: float = 0.0

    def __post_init__(self) -> None:
        _check_choice('depth_encoding', self.depth_encoding, DEPTH_ENCODINGS)
        _check_choice('preview_colormap', self.preview_colormap, PREVIEW_COLORMAPS)
        for low, high in (
            ('depth_min_m', 'depth_max_m'),
            ('preview_min_m', 'preview_max_m'),
            ('points_min_range_m', 'points_max_range_m'),
        ):
            if not 0 <= getattr(self, low) < getattr(self, high):
                raise ValueError(
                    f'{low} is {getattr(self, low)}, expected 0 or more and less than '
                    f'{high}, which is {getattr(self, high)}'
                )
        if self.points_stride < 1:
            raise ValueError(f'points_stride is {self.points_stride}, expected 1 or more')
        if not 0 <= self.points_min_confidence <= 1:
            raise ValueError(
                f'points_min_confidence is {self.points_min_confidence}, expected 0 to 1'
            )


def make_outputs(
    prediction: DepthPrediction,
    *,
    rgb: np.ndarray,
    camera: Camera,
    header: Header,
    wanted: Collection[str],
    settings: OutputSettings,
    source_info: CameraInfo | None = None,
) -> dict[str, Any]:
    """
    Return the wanted messages by topic, all with the image's header; nothing else is computed.

    prediction: what within_limits() returned. rgb: uint8 (H, W, 3). camera: that of the image.
    source_info: where it came from, if anywhere.
    """
    unknown = sorted(set(wanted) - set(OUTPUT_TOPICS))
    if unknown:
        raise ValueError(f'unknown outputs {unknown}, known: {", ".join(OUTPUT_TOPICS)}')
    messages: dict[str, Any] = {}
    if 'depth/image' in wanted:
        messages['depth/image'] = depth_to_image(
            prediction.depth_m, header, settings.depth_encoding
        )
    if 'depth/camera_info' in wanted:
        messages['depth/camera_info'] = camera_to_info(camera, header, source_info)
    if 'depth/preview' in wanted:
        preview = depth_to_preview(prediction.depth_m, settings)
        messages['depth/preview'] = preview_to_image(preview, header)
    if 'confidence' in wanted:
        messages['confidence'] = mono_to_image(prediction.confidence, header)
    if 'points' in wanted:
        messages['points'] = _cloud(prediction, rgb, camera, header, settings)
    return messages


def within_limits(prediction: DepthPrediction, settings: OutputSettings) -> DepthPrediction:
    """Return the prediction; beyond the limits depth is NaN, and where it is, certainty is 0."""
    depth = limit_depth(prediction.depth, settings.depth_min_m, settings.depth_max_m)
    read_certainty = partial(_known_certainty, prediction.read_certainty, depth)
    return replace(prediction, depth=depth, read_certainty=read_certainty)


def _known_certainty(read: Callable[[], torch.Tensor], depth: torch.Tensor) -> torch.Tensor:
    """Return the certainty with 0.0 where depth is unknown, when it is asked for."""
    # On a CPU torch.where takes five times as long.
    return (depth * 0).add_(read()).nan_to_num_(0.0)


def depth_to_preview(depth_m: np.ndarray, settings: OutputSettings) -> np.ndarray:
    """Colour depth by a fixed range, near is warm or bright, NaN black: uint8 (H, W, 3) BGR."""
    span_m = settings.preview_max_m - settings.preview_min_m
    nearness = (settings.preview_max_m - depth_m) * np.float32(255 / span_m)
    known = np.isfinite(depth_m)
    level = np.where(known, nearness.clip(0, 255), 0).astype(np.uint8)
    bgr = cv2.applyColorMap(level, PREVIEW_COLORMAPS[settings.preview_colormap])
    bgr[~known] = 0
    return bgr


def _cloud(
    prediction: DepthPrediction,
    rgb: np.ndarray,
    camera: Camera,
    header: Header,
    settings: OutputSettings,
) -> PointCloud2:
    picked = np.s_[:: settings.points_stride, :: settings.points_stride]
    depth = prediction.depth[picked].contiguous()
    if settings.points_confidence_enable and settings.points_min_confidence > 0:
        certain = prediction.certainty[picked] >= settings.points_min_confidence
        depth = torch.where(certain, depth, torch.nan)
    rays = pixel_rays(
        camera.strided(settings.points_stride),
        min_range_m=settings.points_min_range_m if settings.points_range_enable else 0.0,
        max_range_m=settings.points_max_range_m if settings.points_range_enable else math.inf,
        device=depth.device,
    )
    planes = [*project(depth, rays).cpu().numpy()]
    if settings.points_color:
        planes.append(packed_color(rgb)[picked])  # picking 3 bytes at a time is slow
    if not settings.points_organized:
        known = np.isfinite(planes[2])
        planes = [plane[known][None] for plane in planes]
    cloud = empty_cloud(
        *planes[0].shape,
        header,
        color=settings.points_color,
        is_dense=not settings.points_organized,
    )
    fill_cloud(cloud, planes)
    return cloud


def _check_choice(name: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise ValueError(f'{name} is {value!r}, expected one of: {", ".join(choices)}')
