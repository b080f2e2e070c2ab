"""
The colour of each pixel: texture, lamps, shadows of the first lamp, soft dark corners.

Shapes: B images, N = H x W pixels; vectors are (3, B, N) in the camera's frame.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from llm_mde_train.room_scene import SURFACE_COLUMNS, TUBE, Pose, Scene
from llm_mde_train.room_textures import TextureLibrary
from llm_mde_train.room_trace import ViewedSolids, step, trace, view_solids

SHADOW_SIZE = 128
SHADOW_SLOPE = 5.0  # the shadow map reaches this tangent, finest in its middle
HIGHLIGHT_SHARPNESS = 40.0


@dataclass(frozen=True)
class SeenPoints:
    """What the pixels see: point and unit normal (3, B, N), face (B, N), q of the face's solid."""

    point: torch.Tensor
    normal: torch.Tensor
    local: torch.Tensor
    face: torch.Tensor


def shade(
    scenes: list[Scene],
    poses: list[Pose],
    view: ViewedSolids,
    library: TextureLibrary,
    *,
    inverse: torch.Tensor,
    number: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
) -> torch.Tensor:
    """Return linear RGB float32 (B, 3, H, W) of the traced pixels."""
    batch, height, width = inverse.shape
    seen = _seen_points(view, inverse, number, x, y)
    surface = _gather(_surface_table(scenes, view.kind.shape[1]), seen.face)
    albedo = _albedo(surface, seen, view, number, library, pixel=(x[:, 1] - x[:, 0]))
    light, highlight = _lighting(scenes, poses, seen, surface[11])
    light = light + _ambient(scenes, poses, view, seen)
    colour = albedo * (light + surface[12]) + highlight
    return colour.view(3, batch, height, width).transpose(0, 1)


def _gather(table: np.ndarray, row: torch.Tensor) -> torch.Tensor:
    """Return the table's rows (B, R, C) of each pixel (B, N) as (C, B, N)."""
    batch, rows, columns = table.shape
    flat = torch.from_numpy(table.reshape(-1, columns).T.astype(np.float32)).to(row.device)
    if batch > 1:
        row = row + rows * torch.arange(batch, device=row.device)[:, None]
    chosen = flat.contiguous().index_select(1, row.reshape(-1).long())
    return chosen.view(columns, *row.shape)


def _surface_table(scenes: list[Scene], count: int) -> np.ndarray:
    """Return the packed surface of every face, (B, 6 K, SURFACE_COLUMNS)."""
    table = np.zeros((len(scenes), 6 * count, SURFACE_COLUMNS), np.float32)
    for rows, scene in zip(table, scenes, strict=True):
        packed = [[s.packed() for s in solid.surfaces()] for solid in scene.everything()]
        rows[: 6 * len(packed)] = np.asarray(packed).reshape(-1, SURFACE_COLUMNS)
    return table


def _seen_points(view: ViewedSolids, inverse, number, x, y) -> SeenPoints:
    batch, height, width = inverse.shape
    number = number.round().view(batch, -1)
    depth = 1.0 / inverse
    point = torch.stack([x[:, None] * depth, y[..., None] * depth, depth]).view(3, batch, -1)
    frames = np.concatenate(
        [
            view.gradient.reshape(batch, -1, 9),
            view.offset,
            (view.kind > 0)[..., None],
            (view.kind == TUBE)[..., None],
        ],
        axis=2,
    )
    frame = _gather(frames, number)
    g, rounded, tube = frame[:9].view(3, 3, batch, -1), frame[12], frame[13]
    local = frame[9:12] + g[:, 0] * point[0] + g[:, 1] * point[1] + g[:, 2] * point[2]
    axis, face = _face(local, tube)
    sides = torch.stack([local[0], local[1], local[2] * (1.0 - tube)])
    flat = 1.0 - rounded * (1.0 - tube * axis[2])
    outward = torch.lerp(sides, axis * local, flat)
    normal = outward[0] * g[0] + outward[1] * g[1] + outward[2] * g[2]
    normal = normal * (normal.square().sum(0) + 1e-12).rsqrt()
    away = (normal * point).sum(0)
    normal = normal * (1.0 - 2.0 * step(away))
    return SeenPoints(point, normal, local, number * 6 + face)


def _face(local: torch.Tensor, tube: torch.Tensor):
    """Return the face's axis as 0/1 weights (3, B, N) and its number 0..5 (B, N)."""
    ax, ay, az = local.abs().unbind(0)
    sideways = torch.maximum(ax, ay)
    radius = torch.lerp(sideways, (ax * ax + ay * ay).sqrt_(), tube)
    on_z = step(az - radius)
    on_y = step(ay - ax) * (1.0 - on_z)
    axis = torch.stack([1.0 - on_y - on_z, on_y, on_z])
    positive = (axis * step(local)).sum(0)
    return axis, 2.0 * on_y + 4.0 * on_z + positive


def _albedo(surface, seen, view, number, library, *, pixel):
    """Return the textured colour (3, B, N)."""
    batch = len(pixel)
    half = 1.0 / np.linalg.norm(view.gradient, axis=-1).clip(1e-6)
    half = _gather(half, number.round().view(batch, -1))
    metres = seen.local * half
    face_axis = ((seen.face - 6.0 * (seen.face / 6.0).floor()) * 0.5).floor()
    on_x, on_z = 1.0 - face_axis.clamp(max=1.0), (face_axis - 1.0).clamp(min=0.0)
    along = torch.lerp(metres[0], metres[1], on_x)
    up = torch.lerp(-metres[2], -metres[1], on_z)
    u = surface[1] * along + surface[2] * up + surface[5]
    v = surface[3] * along + surface[4] * up + surface[6]
    copies = (surface[1].abs() + surface[2].abs()).maximum(surface[3].abs() + surface[4].abs())
    depth = seen.point[2]
    facing = (seen.normal * seen.point).sum(0).abs() * seen.point.square().sum(0).rsqrt()
    footprint = 256.0 * copies * depth * pixel[:, None] * (facing + 0.05).rsqrt()
    level = (footprint.clamp(min=1.0).log2()).round_().clamp_(max=8.0)
    flat = [part.reshape(-1) for part in (surface[0], u, v, level)]
    texture = library.sample(*flat).view(3, batch, -1)
    return surface[7:10] * (1.0 - surface[10] * (1.0 - texture))


def _lighting(scenes, poses, seen: SeenPoints, gloss):
    """Return diffuse light (3, B, N) and highlights (B, N)."""
    light = torch.zeros_like(seen.point)
    highlight = torch.zeros_like(gloss)
    to_eye = seen.point * (-seen.point.square().sum(0).rsqrt())
    for lamp in range(max(len(scene.lights) for scene in scenes)):
        table = np.array([_lamp_row(s, p, lamp) for s, p in zip(scenes, poses, strict=True)])
        row = torch.from_numpy(table.T.astype(np.float32)).to(gloss.device)[..., None]
        to_lamp = row[:3] - seen.point
        square = to_lamp.square().sum(0)
        to_lamp = to_lamp * square.rsqrt()
        strength = row[3] / (square + 0.25)
        if lamp == 0:
            strength = strength * _lit(scenes, poses, seen.point)
        facing = (seen.normal * to_lamp).sum(0).clamp_(min=0.0) * strength
        light += row[4:7] * facing
        middle = to_lamp + to_eye
        shine = (middle * seen.normal).sum(0) * middle.square().sum(0).rsqrt()
        shine = (1.0 - HIGHLIGHT_SHARPNESS * (1.0 - shine)).clamp_(min=0.0)
        highlight += gloss * strength * shine * shine
    return light, highlight


def _lamp_row(scene: Scene, pose: Pose, lamp: int):
    """Return a lamp's position in the camera's frame, power and tint; a dark one if none."""
    if lamp >= len(scene.lights):
        return (0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0)
    light = scene.lights[lamp]
    position = (np.asarray(light.position) - pose.position) @ pose.rotation
    return (*position, light.power, *light.tint)


def _lit(scenes: list[Scene], poses: list[Pose], point: torch.Tensor) -> torch.Tensor:
    """Return how much of the first lamp reaches each point, (B, N), from a soft shadow map."""
    device = point.device
    views = [Pose.looking(s.lights[0].position, azimuth_deg=0, tilt_deg=-89.9) for s in scenes]
    line = torch.linspace(-1, 1, SHADOW_SIZE, device=device)
    slopes = (line / (1.0 + 1.0 / SHADOW_SLOPE - line.abs())).expand(len(scenes), -1)
    inverse, _ = trace(view_solids([s.everything() for s in scenes], views), slopes, slopes)
    distance = 1.0 / inverse[:, None]
    moments = torch.cat([distance, distance * distance], 1)
    for _ in range(2):
        moments = functional.avg_pool2d(moments, 3, stride=1, padding=1, count_include_pad=False)
    turn = np.stack([v.rotation.T @ p.rotation for v, p in zip(views, poses, strict=True)])
    move = np.stack(
        [v.rotation.T @ (p.position - v.position) for v, p in zip(views, poses, strict=True)]
    )
    turn, move = (torch.from_numpy(m.astype(np.float32)).to(device) for m in (turn, move))
    px, py, pz = torch.baddbmm(move[..., None], turn, point.transpose(0, 1)).unbind(1)
    depth = pz.clamp(min=0.05)
    place = [(1.0 + 1.0 / SHADOW_SLOPE) * p / (depth + p.abs()) for p in (px, py)]
    place = torch.stack(place, 2)[:, None]
    mean, mean_square = functional.grid_sample(
        moments, place, align_corners=True, padding_mode='border'
    )[:, :, 0].unbind(1)
    spread = (mean_square - mean * mean).clamp_(min=0.0) + (0.02 * depth).square()
    beyond = (depth - mean - 0.01 * depth).clamp(min=0.0)
    chance = spread / (spread + beyond * beyond)
    lit = ((chance - 0.15) * (1.0 / 0.85)).clamp_(min=0.0)
    above = step(0.05 - pz)  # level with the lamp or higher: no shadow known
    return lit + above * (1.0 - lit)


def _ambient(scenes, poses, view: ViewedSolids, seen: SeenPoints) -> torch.Tensor:
    """Return light from everywhere (B, N), less near other walls and on faces turned down."""
    device = seen.point.device
    room = torch.from_numpy(view.gradient[:, 0]).to(device)  # (B, 3, 3)
    offset = torch.from_numpy(view.offset[:, 0]).to(device)
    half = 1.0 / room.norm(dim=-1)
    ambient = torch.tensor([s.ambient for s in scenes], device=device)[:, None]
    up = torch.from_numpy(np.stack([pose.rotation[2] for pose in poses]).astype(np.float32)).to(
        device
    )
    upward = torch.einsum('bi,ibn->bn', up, seen.normal)
    total = ambient * (0.75 + 0.25 * upward)
    local = torch.baddbmm(offset[..., None], room, seen.point.transpose(0, 1))
    facing = torch.bmm(room * half[..., None], seen.normal.transpose(0, 1)).abs()
    for i in range(3):
        gap = ((1.0 - local[:, i].abs()) * half[:, i, None]).clamp_(min=0.0)
        total = total * (1.0 - (1.0 - facing[:, i]) * (0.09 / (gap + 0.15)))
    return total
