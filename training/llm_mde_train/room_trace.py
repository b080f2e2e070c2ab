"""
Which solid each pixel sees, and how far it is.

On a plane the inverse depth w = 1/z is an affine function of the pixel, so a face of a box costs
one addition per pixel, and w of a box is the smallest w of the faces turned to the camera, seen
where that exceeds the largest w of the faces turned away.  Balls and tubes solve a quadratic in w.

Shapes: B images, K solids (number 0 is the room), H x W pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch

from llm_mde_train.room_scene import BALL, BOX, TUBE, Pose, Solid

FAR_AWAY = 1e9
NEAREST_M = 0.02


@dataclass(frozen=True)
class ViewedSolids:
    """
    The solids of B scenes in their cameras' frames.

    gradient: (B, K, 3, 3), q = offset + z * gradient @ (x, y, 1); offset: (B, K, 3);
    near: (B, K, 3, 3) and far: (B, K, 6, 3) planes w = a x + b y + c; kind: (B, K), -1 unused;
    bounds: (B, K, 8, 3) corners in the camera's frame.  float32, NumPy unless being traced.
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


_EDGES = np.array([(i, i | bit) for bit in (1, 2, 4) for i in range(8) if not i & bit])


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

    x: (B, W) and y: (B, H), the pixels' ray slopes x/z and y/z.  On a CPU, NumPy visits only the
    window of each solid, one image after the other; on a GPU, torch does whole batches.
    """
    if x.device.type == 'cpu':
        ones = zip(*(np.split(part, len(x)) for part in vars(view).values()), strict=True)
        pairs = [
            _trace(np, ViewedSolids(*one), x[i : i + 1].numpy(), y[i : i + 1].numpy())
            for i, one in enumerate(ones)
        ]
        inverse, number = (np.concatenate(part) for part in zip(*pairs, strict=True))
        return torch.from_numpy(inverse), torch.from_numpy(number)
    parts = (torch.from_numpy(part).to(x.device) for part in vars(view).values())
    return _trace(torch, ViewedSolids(*parts), x, y)


def _trace(xp, view: ViewedSolids, x, y):
    """Do the work of trace with the array library xp (NumPy or torch)."""
    near_x, near_y = _terms(view.near, x, y)
    far_x, far_y = _terms(view.far, x, y)
    whole = (slice(None), slice(None))
    inverse = _fold(xp.maximum, far_x[0], far_y[0], range(6), whole)
    number = xp.zeros_like(inverse)
    windows, near_faces, far_faces = _savings(view, x, y) if xp is np else (None, None, None)
    round_ = (view.kind > BOX).any(0).tolist()
    for k in range(1, view.kind.shape[1]):
        window = windows[k] if windows else whole
        if window is None:
            continue
        enter = _fold(
            xp.minimum, near_x[k], near_y[k], near_faces[k] if windows else range(3), window
        )
        leave = _fold(
            xp.maximum, far_x[k], far_y[k], far_faces[k] if windows else range(6), window
        )
        if round_[k]:
            slopes = x[:, None, window[1]], y[:, window[0], None]
            enter, leave = _rounded(xp, view, k, enter, leave, *slopes)
        seen, name = inverse[:, window[0], window[1]], number[:, window[0], window[1]]
        hit = enter > xp.maximum(leave, seen)
        xp.maximum(seen, enter * hit, out=seen)
        name += (k - name) * hit  # arithmetic is faster than choosing
    return inverse, number


def _terms(planes, x, y):
    """Return a x as (K, P, B, 1, W) and b y + c as (K, P, B, H, 1)."""
    turn = (1, 2, 0, 3) if isinstance(planes, torch.Tensor) else None
    planes = planes.permute(turn) if turn else planes.transpose(1, 2, 0, 3)
    a, b, c = planes[..., 0, None], planes[..., 1, None], planes[..., 2, None]
    return (a * x)[..., None, :], (b * y + c)[..., None]


def _fold(function, term_x, term_y, faces, window):
    """Return the smallest or largest w of the faces in the window."""
    rows, columns = window
    result = None
    for face in faces:
        plane = term_x[face][..., columns] + term_y[face][:, rows]
        result = plane if result is None else function(result, plane, out=result)
    return result


def _rounded(xp, view: ViewedSolids, k: int, enter, leave, x, y):
    """Cut the interval [leave, enter] of w by the ball or tube."""
    g, o = view.gradient[:, k, :, :, None, None], view.offset[:, k, :, None, None]
    kind = view.kind[:, k, None, None]
    d = [g[:, i, 0] * x + (g[:, i, 1] * y + g[:, i, 2]) for i in range(3)]
    ball = 1.0 * (kind == BALL) if xp is torch else np.float32(kind == BALL)
    a = d[0] * d[0] + d[1] * d[1] + ball * (d[2] * d[2])
    b = -(o[:, 0] * d[0] + o[:, 1] * d[1] + ball * o[:, 2] * d[2])
    c = o[:, 0] * o[:, 0] + o[:, 1] * o[:, 1] + ball * o[:, 2] * o[:, 2] - 1.0
    c = xp.where(abs(c) < 1e-4, 1e-4, c)
    inside = b * b - a * c
    root = abs(inside) ** 0.5
    front = xp.where((kind > BOX) & (c > 0), (b + root) / c, enter)
    front = xp.where((kind > BOX) & (inside <= 0), -FAR_AWAY, front)
    back = xp.where(kind > BOX, (b - root) / c, leave)
    return xp.minimum(enter, front), xp.maximum(leave, back)


def _savings(view: ViewedSolids, x, y):
    """Return the window of each solid of one image and the planes it needs there."""
    near = np.abs(view.near[0, :, :, 2]) < FAR_AWAY
    far = np.abs(view.far[0, :, :, 2]) < FAR_AWAY
    far[:, 3:] &= (view.far[0, :, 3:] != view.far[0, :, :3]).any(-1)
    faces = [
        [[i for i, use in enumerate(row) if use] or [0] for row in used.tolist()]
        for used in (near, far)
    ]
    return _windows(view.bounds[0], x[0], y[0]), *faces


def _windows(bounds: np.ndarray, x: np.ndarray, y: np.ndarray):
    """Return the slices of rows and columns that may see each solid; None where none can."""
    start, end = bounds[:, _EDGES[:, 0]], bounds[:, _EDGES[:, 1]]  # (K, 12, 3)
    part = (NEAREST_M - start[..., 2]) / np.where(end == start, 1e-9, end - start)[..., 2]
    cut = start + part.clip(0, 1)[..., None] * (end - start)  # where edges enter the view
    points = np.concatenate([bounds, cut], axis=1)
    ahead = points[..., 2] >= NEAREST_M * 0.999
    limits = []
    for axis, line in ((1, y), (0, x)):
        ray = points[..., axis] / np.maximum(points[..., 2], NEAREST_M)
        lowest, highest = np.where(ahead, ray, np.inf), np.where(ahead, ray, -np.inf)
        limits.append(np.searchsorted(line, lowest.min(1) - 1e-5))
        limits.append(np.searchsorted(line, highest.max(1) + 1e-5, side='right'))
    return [
        (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None
        for top, bottom, left, right in zip(*(part.tolist() for part in limits), strict=True)
    ]
