"""Depth -> points: few passes of torch, on the device of depth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from llm_mde_core.geometry import Camera


@dataclass(frozen=True)
class PixelRays:
    """What holds for the pixels of a camera in every frame; float32 on one device."""

    slopes: torch.Tensor  # (2, H, W): x/z and y/z, NaN where the pixel has no ray
    min_depth: torch.Tensor  # (H, W) metres along z: of the nearest point that is kept
    max_depth: torch.Tensor  # (H, W)


@lru_cache(maxsize=1)  # of 16 megapixels they take 256 MB
def pixel_rays(
    camera: Camera, *, min_range_m: float, max_range_m: float, device: torch.device
) -> PixelRays:
    """Return the rays of a camera and how far points lie on them; the last ones are kept."""
    slopes = torch.tensor(camera.rays()).permute(2, 0, 1).contiguous()
    length = (1 + slopes.square().sum(dim=0)).sqrt()  # of the ray to z = 1
    floats = torch.finfo(torch.float32)  # neither 0 nor infinity is a depth
    return PixelRays(
        slopes.to(device),
        (min_range_m / length).clamp(min=floats.tiny).to(device),
        (max_range_m / length).clamp(max=floats.max).to(device),
    )


def limit_depth(
    depth: torch.Tensor, low: torch.Tensor | float, high: torch.Tensor | float
) -> torch.Tensor:
    """
    Return depth, float32 (H, W) metres, with NaN where it is unknown or not from low to high.

    low and high, 0 or more, are of all pixels or of each, (H, W).
    """
    # On a CPU each of these passes takes a tenth of torch.where, which is not vectorised.
    inside = depth.clamp(low, high).eq_(depth)  # type: ignore[arg-type]  # 1.0 or 0.0
    return (depth / inside).mul_(inside).abs_()  # 0.0: infinity, then NaN, then without its sign


def project(depth: torch.Tensor, rays: PixelRays) -> torch.Tensor:
    """
    Return metres x, y and z of every pixel, one after the other: float32 (3, H, W).

    depth: float32 (H, W) metres along z, on the device of rays. NaN where depth is unknown or not
    positive, the pixel has no ray, or the point is nearer or farther than rays allow.
    """
    if depth.shape != rays.min_depth.shape:
        height, width = rays.min_depth.shape
        raise ValueError(
            f'depth of shape {tuple(depth.shape)} does not belong to a camera of '
            f'{height} rows and {width} columns'
        )
    points = depth.new_empty(3, *depth.shape)
    points[2] = limit_depth(depth, rays.min_depth, rays.max_depth)
    torch.mul(rays.slopes, points[2], out=points[:2])
    return points
