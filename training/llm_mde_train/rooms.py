"""
Endless rendered rooms with exact depth, on a CPU or a GPU.

    sample_scene ──▶ trace ──▶ shade ──▶ expose
    (solids, pose)   (1/z)     (light)   (uint8)

Shapes: B images of H x W pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch

from llm_mde_core.geometry import Camera
from llm_mde_train.room_layouts import sample_scene
from llm_mde_train.room_scene import Dice, Pose, Scene
from llm_mde_train.room_sensor import expose, sample_sensor
from llm_mde_train.room_shading import shade
from llm_mde_train.room_textures import texture_library
from llm_mde_train.room_trace import trace, view_solids

LIBRARY_SEED = 0
HFOV_DEG = (58.0, 98.0)  # training cuts longer lenses out of these


@dataclass(frozen=True)
class RoomBatch:
    """
    Photographs and their exact depth.

    rgb: uint8 (B, H, W, 3) RGB; depth_m: float32 (B, H, W), metres along the optical axis, NaN
    where there is none; cameras: one per image; fx, fy, cx, cy: float32 (B,) in pixels.
    """

    rgb: torch.Tensor
    depth_m: torch.Tensor
    cameras: list[Camera]
    fx: torch.Tensor
    fy: torch.Tensor
    cx: torch.Tensor
    cy: torch.Tensor


def render_rooms(
    *, seed: int, batch: int, height: int, width: int, device: torch.device | str = 'cpu'
) -> RoomBatch:
    """Return random rooms; the same seed gives the same rooms, one seed never runs out."""
    device = torch.device(device)
    rngs = [Dice(f'{seed} {image}') for image in range(batch)]
    cameras = [_sample_camera(rng, width=width, height=height) for rng in rngs]
    scenes, poses = zip(*(sample_scene(rng) for rng in rngs), strict=True)
    group = batch if device.type != 'cpu' else 1  # one image at a time stays in a CPU's cache
    parts = []
    for first in range(0, batch, group):
        chosen = slice(first, first + group)
        light, depth = render_scenes(scenes[chosen], poses[chosen], cameras[chosen], device=device)
        sensors = [sample_sensor(rng) for rng in rngs[chosen]]
        parts.append((expose(light, sensors, rngs[chosen]), depth))
    rgb, depth_m = (torch.cat(part) for part in zip(*parts, strict=True))
    numbers = torch.tensor([(c.fx, c.fy, c.cx, c.cy) for c in cameras], device=device)
    return RoomBatch(rgb, depth_m, cameras, *numbers.unbind(1))


def render_scenes(
    scenes: list[Scene],
    poses: list[Pose],
    cameras: list[Camera],
    *,
    device: torch.device | str = 'cpu',
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return what rectified cameras of one size see of given scenes.

    Linear light float32 (B, 3, H, W) and exact depth float32 (B, H, W) in metres, NaN where none.
    """
    device = torch.device(device)
    x, y = (_slopes(cameras, axis).to(device) for axis in (0, 1))
    view = view_solids([scene.everything() for scene in scenes], poses)
    inverse, number = trace(view, x, y)
    library = texture_library(LIBRARY_SEED, str(device))
    light = shade(
        scenes, poses, view, library, inverse=inverse, number=number, x=x, y=y
    )  # fmt: skip
    depth = 1.0 / inverse
    return light, depth + 0.0 * depth  # infinity becomes NaN


def _slopes(cameras: list[Camera], axis: int) -> torch.Tensor:
    """Return x/z (B, W) of the columns or y/z (B, H) of the rows."""
    if axis == 0:
        lines = [(np.arange(c.width) - c.cx) / c.fx for c in cameras]
    else:
        lines = [(np.arange(c.height) - c.cy) / c.fy for c in cameras]
    return torch.from_numpy(np.stack(lines).astype(np.float32))


def _sample_camera(rng: Dice, *, width: int, height: int) -> Camera:
    """Return a random lens."""
    camera = Camera.from_hfov(width=width, height=height, hfov_deg=rng.uniform(*HFOV_DEG))
    shift = rng.normals(2, 0.015)
    aspect = 1 + rng.gauss(0, 0.004)
    return Camera(
        width,
        height,
        camera.fx,
        camera.fy * aspect,
        camera.cx + shift[0] * width,
        camera.cy + shift[1] * height,
    )
