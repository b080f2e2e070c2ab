"""
The colour of each pixel: texture, lamps, shadows of the first lamp, soft dark corners.

Shapes: B images, N = H x W pixels; vectors are (3, B, N) in the camera's frame.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from llm_mde_train.room_scene import BOX, SURFACE_COLUMNS, TUBE, Pose, Scene
from llm_mde_train.room_textures import SIZE, TextureLibrary
from llm_mde_train.room_trace import ViewedSolids, trace, view_solids

SHADOW_SIZE = 128
SHADOW_SLOPE = 5.0  # the shadow map reaches this tangent, finest in its middle
HIGHLIGHT_SHARPNESS = 40.0


@dataclass(frozen=True)
class SeenPoints:
    """
    What the pixels see.

    point, normal: (3, B, N) metres and unit vectors; local: (3, B, N) metres from the centre of
    the solid in its own frame; face: (B, N) number of the face; on_y, on_z: (B, N) 1 where the
    face points along that axis of the solid.
    """

    point: torch.Tensor
    normal: torch.Tensor
    local: torch.Tensor
    face: torch.Tensor
    on_y: torch.Tensor
    on_z: torch.Tensor


def _step(x: torch.Tensor) -> torch.Tensor:
    """Return 1 where x > 0, else 0, by arithmetic: comparisons are slow in torch on a CPU."""
    return (x * 1e12).clamp_(0.0, 1.0)


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the dot product over the first of two (3, B, N)."""
    return torch.addcmul(torch.addcmul(a[0] * b[0], a[1], b[1]), a[2], b[2])


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
    albedo = _albedo(surface, seen, library, pixel=x[:, 1] - x[:, 0])
    light, highlight = _lighting(scenes, poses, seen)
    light += _ambient(scenes, poses, view, seen)
    light += surface[12]
    colour = (albedo * light).add_(highlight * surface[11])
    return colour.view(3, batch, height, width).transpose(0, 1)


def _gather(table: np.ndarray, row: torch.Tensor) -> torch.Tensor:
    """Return the table's rows (B, R, C) of each pixel (B, N) as (C, B, N)."""
    batch, rows, columns = table.shape
    flat = torch.from_numpy(np.ascontiguousarray(table.reshape(-1, columns).T, np.float32))
    if batch > 1:
        row = row + rows * torch.arange(batch, device=row.device)[:, None]
    chosen = flat.to(row.device).index_select(1, row.reshape(-1).int())
    return chosen.view(columns, *row.shape)


def _surface_table(scenes: list[Scene], count: int) -> np.ndarray:
    """Return the packed surface of every face, (B, 6 K, SURFACE_COLUMNS)."""
    table = np.zeros((len(scenes), 6 * count, SURFACE_COLUMNS), np.float32)
    for rows, scene in zip(table, scenes, strict=True):
        faces = [face for solid in scene.everything() for face in solid.surfaces()]
        distinct = {id(face): face for face in faces}
        order = dict(zip(distinct, range(len(distinct)), strict=True))
        packed = np.array([face.packed() for face in distinct.values()], np.float32)
        rows[: len(faces)] = packed[[order[id(face)] for face in faces]]
    return table


def _seen_points(view: ViewedSolids, inverse, number, x, y) -> SeenPoints:
    batch = len(inverse)
    number = number.view(batch, -1)
    depth = 1.0 / inverse
    point = torch.empty(3, *inverse.shape, device=x.device)
    torch.mul(x[:, None], depth, out=point[0])
    torch.mul(y[..., None], depth, out=point[1])
    point[2] = depth
    point = point.view(3, batch, -1)
    half = 1.0 / np.linalg.norm(view.gradient, axis=-1, keepdims=True).clip(1e-6)
    flags = np.stack([view.kind > BOX, view.kind == TUBE], axis=-1)
    unit = (view.gradient * half).reshape(batch, -1, 9)
    parts = [unit, view.offset * half[..., 0], half[..., 0], flags]
    frame = _gather(np.concatenate(parts, axis=2), number)
    unit, rounded, tube = frame[:9].view(3, 3, batch, -1), frame[15], frame[16]
    local = frame[9:12]
    for i in range(3):
        local = torch.addcmul(local, unit[:, i], point[i])  # metres along each axis of the solid
    q = local / frame[12:15]
    on_y, on_z, positive = _face(q, tube)
    curved = rounded * (1.0 - tube * on_z)
    flat = 1.0 - curved
    sides = q / frame[12:15] * curved
    sides[2] *= 1.0 - tube
    sides[0] += (1.0 - on_y - on_z) * flat
    sides[1] += on_y * flat
    sides[2] += on_z * flat
    normal = unit[0] * sides[0]
    normal.addcmul_(unit[1], sides[1]).addcmul_(unit[2], sides[2])
    away = _step(_dot(normal, point))
    normal *= (_dot(normal, normal) + 1e-12).rsqrt_() * (1.0 - 2.0 * away)
    face = number * 6 + 2.0 * on_y + 4.0 * on_z + positive
    return SeenPoints(point, normal, local, face, on_y, on_z)


def _face(q: torch.Tensor, tube: torch.Tensor):
    """Return whether the face's axis is y, is z, and points to the positive side, (B, N) each."""
    ax, ay, az = q.abs().unbind(0)
    radius = torch.lerp(torch.maximum(ax, ay), (ax * ax + ay * ay).sqrt_(), tube)
    on_z = _step(az - radius)
    on_y = _step(ay - ax) * (1.0 - on_z)
    along = torch.lerp(torch.lerp(q[0], q[1], on_y), q[2], on_z)
    return on_y, on_z, _step(along)


def _albedo(surface, seen: SeenPoints, library: TextureLibrary, *, pixel):
    """Return the textured colour (3, B, N)."""
    along = torch.lerp(seen.local[1], seen.local[0], seen.on_y + seen.on_z)
    up = torch.lerp(seen.local[2], seen.local[1], seen.on_z)
    u = torch.addcmul(torch.addcmul(surface[5], surface[1], along), surface[2], up, value=-1)
    v = torch.addcmul(torch.addcmul(surface[6], surface[3], along), surface[4], up, value=-1)
    facing = _dot(seen.normal, seen.point).abs() * _dot(seen.point, seen.point).rsqrt_()
    footprint = surface[13] * seen.point[2] * (SIZE * pixel[:, None]) * (facing + 0.05).rsqrt_()
    level = footprint.clamp_(min=1.0).log2_().round_().clamp_(max=8.0)
    flat = [part.reshape(-1) for part in (surface[0], u, v, level)]
    texture = library.sample(*flat).view(3, *u.shape)
    return surface[7:10] * (1.0 - surface[10] * (1.0 - texture))


def _lighting(scenes, poses, seen: SeenPoints):
    """Return diffuse light (3, B, N) and highlights (B, N)."""
    count = max(len(scene.lights) for scene in scenes)
    rows = np.array(
        [[_lamp_row(s, p, i) for i in range(count)] for s, p in zip(scenes, poses, strict=True)]
    )
    lamp = torch.from_numpy(rows.astype(np.float32)).to(seen.point.device)  # (B, L, 7)
    place, power, tint = lamp[..., :3], lamp[..., 3, None], lamp[..., 4:]
    point, normal = seen.point.transpose(0, 1), seen.normal.transpose(0, 1)
    range2 = _dot(seen.point, seen.point)[:, None]  # (B, 1, N)
    normal_point = _dot(seen.normal, seen.point)[:, None]
    lamp_point = torch.bmm(place, point)  # (B, L, N)
    square = range2 - 2.0 * lamp_point + place.square().sum(-1, keepdim=True)
    near = (square + 1e-3).rsqrt_()
    facing = (torch.bmm(place, normal) - normal_point) * near
    strength = power / (square + 0.6)  # lamps are not points
    strength[:, 0] *= _lit(scenes, poses, seen.point)
    light = torch.bmm(tint.transpose(1, 2), facing.clamp(min=0.0) * strength)
    eye = range2.rsqrt()
    towards = (range2 - lamp_point) * near * eye  # cosine between lamp and eye
    middle = (facing - normal_point * eye) * (2.0 + 1e-3 + 2.0 * towards).rsqrt_()
    shine = (middle * HIGHLIGHT_SHARPNESS + (1.0 - HIGHLIGHT_SHARPNESS)).clamp_(min=0.0)
    return light.transpose(0, 1), (shine * shine * strength).sum(1)


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
    for axis in (2, 3, 2, 3):
        moments = _blurred(moments, axis)
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
    above = _step(0.05 - pz)  # level with the lamp or higher: no shadow known
    return lit + above * (1.0 - lit)


def _blurred(image: torch.Tensor, axis: int) -> torch.Tensor:
    """Return the image averaged over three neighbours along an axis."""
    size = image.shape[axis]
    before, after = image.narrow(axis, 0, size - 2), image.narrow(axis, 2, size - 2)
    result = image.clone()
    result.narrow(axis, 1, size - 2).add_(before).add_(after).div_(3.0)
    return result


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
    upward = _dot(up.T[..., None], seen.normal)
    total = ambient * (0.85 + 0.15 * upward)
    local = torch.baddbmm(offset[..., None], room, seen.point.transpose(0, 1))
    facing = torch.bmm(room * half[..., None], seen.normal.transpose(0, 1)).abs_()
    gap = ((1.0 - local.abs_()) * half[..., None]).clamp_(min=0.0)
    open_ = 1.0 - (1.0 - facing) * (0.09 / (gap + 0.15))
    return total * open_[:, 0] * open_[:, 1] * open_[:, 2]
