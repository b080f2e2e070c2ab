"""
Which solid each pixel sees, and how far it is.

On a plane the inverse depth w = 1/z is an affine function of the pixel, so a face of a box costs
one addition per pixel, and w of a box is the smallest w of the faces turned to the camera, seen
where that exceeds the largest w of the faces turned away.  Balls and tubes solve a quadratic in w.
Comparisons are written as arithmetic on 0/1 steps, which is several times faster on a CPU.

Shapes: B images, K solids (number 0 is the room), H x W pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch

from llm_mde_train.room_scene import BOX, TUBE, Pose, Solid

FAR_AWAY = 1e9
SHARP = 1e12
NEAREST_M = 0.02


def step(x: torch.Tensor) -> torch.Tensor:
    """Return 1 where x > 0, else 0."""
    return (x * SHARP).clamp_(0.0, 1.0)


@dataclass(frozen=True)
class ViewedSolids:
    """
    The solids of B scenes in their cameras' frames.

    gradient: (B, K, 3, 3), q = offset + z * gradient @ (x, y, 1); offset: (B, K, 3);
    near: (B, K, 3, 3) and far: (B, K, 6, 3) planes w = a x + b y + c; kind: (B, K), -1 unused;
    bounds: (B, K, 8, 3) corners in the camera's frame.  NumPy float32.
    """

    gradient: np.ndarray
    offset: np.ndarray
    near: np.ndarray
    far: np.ndarray
    kind: np.ndarray
    bounds: np.ndarray


def view_solids(solids: list[list[Solid]], poses: list[Pose]) -> ViewedSolids:
    """Return the solids of every scene as its camera sees them."""
    count = max(len(each) for each in solids)
    views = [_view_one(each, pose, count) for each, pose in zip(solids, poses, strict=True)]
    return ViewedSolids(*(np.stack(parts) for parts in zip(*views, strict=True)))


_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


def _view_one(solids: list[Solid], pose: Pose, count: int):
    axes = np.array([solid.axes for solid in solids], np.float64)
    half = np.array([solid.half for solid in solids], np.float64)
    centre = np.array([solid.centre for solid in solids], np.float64)
    gradient = (axes / half[:, :, None]) @ pose.rotation
    offset = np.einsum('kij,kj->ki', axes / half[:, :, None], pose.position - centre)
    kind = np.array([solid.kind for solid in solids])
    near, far = _planes(gradient, offset, kind)
    corners = (_CORNERS[None] * half[:, None]) @ axes + (centre - pose.position)[:, None]
    extra = count - len(solids)
    parts = (gradient, offset, near, far, kind, corners @ pose.rotation)
    never = (0.0, 0.0, 0.0, 0.0, -1, 0.0)  # w = 0 is never in front
    return tuple(
        np.concatenate([part, np.full((extra, *part.shape[1:]), value)]).astype(
            np.int64 if part is kind else np.float32
        )
        for part, value in zip(parts, never, strict=True)
    )


def _planes(gradient, offset, kind):
    """Return the near (K, 3, 3) and far (K, 6, 3) planes, w = a x + b y + c."""
    offset = np.where(np.abs(np.abs(offset) - 1) < 1e-5, offset * (1 + 2e-5), offset)
    outside = np.abs(offset) > 1
    side = np.sign(offset)
    always, never = np.array([0, 0, FAR_AWAY]), np.array([0, 0, -FAR_AWAY])
    gap = np.where(outside, side - offset, 1.0)
    near = np.where(outside[..., None], gradient / gap[..., None], always)
    plus, minus = (gradient / (s - offset)[..., None] for s in (1.0, -1.0))
    single = np.where((side < 0)[..., None], plus, minus)
    far = np.concatenate(
        [
            np.where(outside[..., None], single, plus),
            np.where(outside[..., None], single, minus),
        ],
        axis=1,
    )
    round_axes = np.zeros((len(kind), 3), bool)
    round_axes[kind != BOX] = True
    round_axes[kind == TUBE, 2] = False
    near[round_axes] = always
    far[np.concatenate([round_axes, round_axes], axis=1)] = never
    return near, far


def trace(
    view: ViewedSolids, x: torch.Tensor, y: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return inverse depth float32 (B, H, W) in 1/m and the number of the solid seen, as floats.

    x: (B, W) and y: (B, H), the pixels' ray slopes x/z and y/z.
    """
    near, far, gradient, offset = (
        torch.from_numpy(part).to(x.device)
        for part in (view.near, view.far, view.gradient, view.offset)
    )
    near_x, near_y = _terms(near, x, y)
    far_x, far_y = _terms(far, x, y)
    inverse = _largest(far_x[:, 0], far_y[:, 0], range(6), slice(None), slice(None))
    number = torch.zeros_like(inverse)
    alone = len(inverse) == 1
    windows = _windows(view.bounds[0], x[0], y[0]) if alone else None
    for k in range(1, view.kind.shape[1]):
        rows, columns = windows[k] if alone else (slice(None), slice(None))
        if rows is None:
            continue
        near_faces, far_faces = _used_faces(view, k) if alone else (range(3), range(6))
        enter = _smallest(near_x[:, k], near_y[:, k], near_faces, rows, columns)
        leave = _largest(far_x[:, k], far_y[:, k], far_faces, rows, columns)
        if (view.kind[:, k] > BOX).any():
            slopes = (x[:, None, columns], y[:, rows, None])
            round_ = torch.from_numpy(view.kind[:, k] > BOX).to(x)
            tube = torch.from_numpy(view.kind[:, k] == TUBE).to(x)
            enter, leave = _rounded(
                enter, leave, gradient[:, k], offset[:, k], round_, tube, *slopes
            )
        seen = inverse[:, rows, columns]
        hit = step(enter - torch.maximum(leave, seen))
        seen.lerp_(enter.clamp_(max=FAR_AWAY), hit)
        number[:, rows, columns].lerp_(torch.full_like(enter, k), hit)
    return inverse, number


def _terms(planes: torch.Tensor, x: torch.Tensor, y: torch.Tensor):
    """Return a x as (B, K, P, 1, W) and b y + c as (B, K, P, H, 1)."""
    a, b, c = planes[..., None].unbind(3)
    return (a * x[:, None, None])[..., None, :], (b * y[:, None, None] + c)[..., None]


def _smallest(term_x, term_y, faces, rows, columns):
    planes = [term_x[:, i, :, columns] + term_y[:, i, rows] for i in faces]
    result = planes[0]
    for plane in planes[1:]:
        result = torch.minimum(result, plane, out=result)
    return result


def _largest(term_x, term_y, faces, rows, columns):
    planes = [term_x[:, i, :, columns] + term_y[:, i, rows] for i in faces]
    result = planes[0]
    for plane in planes[1:]:
        result = torch.maximum(result, plane, out=result)
    return result


def _used_faces(view: ViewedSolids, k: int):
    """Return the planes that are not trivial or repeated (at least one of each kind)."""
    near = [i for i in range(3) if view.near[0, k, i, 2] != np.float32(FAR_AWAY)]
    far = [i for i in range(6) if view.far[0, k, i, 2] != np.float32(-FAR_AWAY)]
    far = [i for i in far if i < 3 or (view.far[0, k, i] != view.far[0, k, i - 3]).any()]
    return near or [0], far or [0]


def _rounded(enter, leave, gradient, offset, round_, tube, x, y):
    """Cut the interval [leave, enter] of w by the ball or tube."""
    gx, gy, gz = ((gradient[:, i, :, None, None]).unbind(1) for i in range(3))
    ox, oy, oz = (offset[:, i, None, None] for i in range(3))
    ball = (1.0 - tube)[:, None, None]
    dx, dy, dz = (g[0] * x + (g[1] * y + g[2]) for g in (gx, gy, gz))
    a = dx * dx + dy * dy + ball * (dz * dz)
    b = -(ox * dx + oy * dy + ball * (oz * dz))
    c = ox * ox + oy * oy + ball * (oz * oz) - 1.0
    c = torch.where(c.abs() < 1e-4, torch.full_like(c, 1e-4), c)
    inside = b * b - a * c
    root = inside.clamp(min=0.0).sqrt_()
    miss = 2 * FAR_AWAY * (1.0 - step(inside)) * round_[:, None, None]
    behind = FAR_AWAY * 4 * (c < 0)
    use = round_[:, None, None]
    front = torch.where(use * (c > 0) > 0, (b + root) / c, enter + behind)
    back = torch.where(use > 0, (b - root) / c, leave)
    return torch.minimum(enter, front) - miss, torch.maximum(leave, back)


def _windows(bounds: np.ndarray, x: torch.Tensor, y: torch.Tensor):
    """Return row and column slices of the pixels that may see each solid; None if none can."""
    z = bounds[..., 2]
    limits = []
    for axis, slopes in ((1, y), (0, x)):
        ray = bounds[..., axis] / np.maximum(z, NEAREST_M)
        line = slopes.cpu().numpy()
        first = np.searchsorted(line, ray.min(1) - 1e-6)
        last = np.searchsorted(line, ray.max(1) + 1e-6, side='right')
        crossing = z.min(1) < NEAREST_M
        limits += [np.where(crossing, 0, first), np.where(crossing, len(line), last)]
    hidden = z.max(1) < NEAREST_M
    return [
        (None, None) if gone or r0 >= r1 or c0 >= c1 else (slice(r0, r1), slice(c0, c1))
        for gone, r0, r1, c0, c1 in zip(hidden.tolist(), *(part.tolist() for part in limits))
    ]
