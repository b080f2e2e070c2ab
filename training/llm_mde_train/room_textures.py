"""
The library of surface textures of the rendered rooms.

Every texture is a square, periodic picture made by a small seeded recipe.  All of them live, with
their mip levels, in one flat table so that a whole image of different surfaces is textured by
four gathers.

Shapes: S = 256 texels a side, T = texels of all textures and levels.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional

SIZE = 256


@dataclass(frozen=True)
class TextureLibrary:
    """
    All textures on one device.

    texels: float32 (3, T) RGB in [0, 1], all textures of a level after all of the finer level;
    count: number of textures.
    """

    texels: torch.Tensor
    count: int

    def sample(
        self, number: torch.Tensor, u: torch.Tensor, v: torch.Tensor, level: torch.Tensor
    ) -> torch.Tensor:
        """Return RGB float32 (3, N), bilinear in one mip level; number and level hold integers."""
        size = torch.exp2(8.0 - level)
        u, v = (u - u.floor()) * size - 0.5, (v - v.floor()) * size - 0.5
        u0, v0 = u.floor(), v.floor()
        u1, v1 = torch.minimum(u0 + 1.0, size - 1.0), torch.minimum(v0 + 1.0, size - 1.0)
        fu, fv = u - u0, v - v0
        u0.clamp_(min=0.0), v0.clamp_(min=0.0)
        area = size * size
        before = (SIZE * SIZE - area) * (self.count / 3.0 * 4.0)  # texels of all finer levels
        start = before.round_() + number * area
        top, bottom = start + v0 * size, start + v1 * size  # exact: below 2 ** 24
        a, b, c, d = (
            self.texels.index_select(1, (row + column).int())
            for row in (top, bottom)
            for column in (u0, u1)
        )
        return torch.lerp(torch.lerp(a, b, fu), torch.lerp(c, d, fu), fv)


@lru_cache(maxsize=4)
def texture_library(seed: int, device: str) -> TextureLibrary:
    """Make (or remember) the library of one seed on one device."""
    rng = np.random.default_rng((seed, 77))
    recipes = [recipe for recipe, copies in RECIPES.values() for _ in range(copies)]
    pictures = [np.clip(recipe(rng), 0.0, 1.0) for recipe in recipes]
    level = torch.from_numpy(np.stack(pictures).astype(np.float32)).permute(3, 0, 1, 2)
    levels = [level]
    while levels[-1].shape[-1] > 1:
        levels.append(functional.avg_pool2d(levels[-1], 2))
    texels = torch.cat([level.reshape(3, -1) for level in levels], 1)
    return TextureLibrary(texels.to(device), len(pictures))


@lru_cache
def _between(cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two periodic cells each texel lies between, and its smooth share (S,)."""
    place = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE * cells - 0.5
    first = np.floor(place).astype(int)
    part = place - first
    return first % cells, (first + 1) % cells, part * part * (3 - 2 * part)


def _noise(rng, cells_u: int, cells_v: int) -> np.ndarray:
    """Return periodic smooth noise (S, S) in [0, 1] with so many cells along u and v."""
    grid = rng.random((cells_v, cells_u), dtype=np.float32)
    first, second, part = _between(cells_v)
    rows = grid[first] + (grid[second] - grid[first]) * part[:, None]
    first, second, part = _between(cells_u)
    return rows[:, first] + (rows[:, second] - rows[:, first]) * part


def _fractal(rng, cells: int, octaves: int, *, stretch: int = 1, gain: float = 0.6) -> np.ndarray:
    """Return multi-octave periodic noise (S, S) in [0, 1]."""
    total, weight, sum_weight = np.zeros((SIZE, SIZE), np.float32), 1.0, 0.0
    for octave in range(octaves):
        fine = min(cells << octave, SIZE)
        total += weight * _noise(rng, fine, max(fine // stretch, 2))
        sum_weight += weight
        weight *= gain
    return total / sum_weight


def _colour(rng, low: float = 0.05, high: float = 1.0, saturation: float = 0.6) -> np.ndarray:
    """Return one random RGB colour, grey as often as vivid."""
    grey = rng.uniform(low, high)
    hue = rng.random(3) - 0.5
    return np.clip(grey + saturation * rng.random() ** 1.5 * hue, 0.02, 1.0).astype(np.float32)


def _grey(plane: np.ndarray) -> np.ndarray:
    return np.repeat(plane[..., None], 3, axis=2)


def _mix(plane: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first + plane[..., None] * (second - first)


def _axes() -> tuple[np.ndarray, np.ndarray]:
    """Return texel centres v (S, 1) and u (1, S) in [0, 1)."""
    line = ((np.arange(SIZE) + 0.5) / SIZE).astype(np.float32)
    return line[:, None], line[None, :]


def _plain(rng):
    return _grey(1.0 - rng.uniform(0.01, 0.06) * _fractal(rng, 2, 4))


def _cloudy(rng):
    plane = _fractal(rng, int(rng.choice([2, 4, 8, 16])), 5, gain=rng.uniform(0.4, 0.9))
    return _mix(plane, _colour(rng, 0.3, 0.8, 0.2), _colour(rng, 0.7, 1.0, 0.2))


def _speckled(rng):
    plane = _noise(rng, 128, 128) * 0.5 + _noise(rng, 64, 64) * 0.5
    spots = np.clip((plane - rng.uniform(0.5, 0.7)) * 8, 0, 1)
    base = np.broadcast_to(_colour(rng, 0.6, 1.0, 0.2), (SIZE, SIZE, 3))
    return base + spots[..., None] * (_colour(rng, 0.1, 0.9, 0.4) - base)


def _planks(rng):
    """Boards along u, with seams, each board of its own tone."""
    rows = int(rng.choice([4, 6, 8]))
    v, u = _axes()
    row = np.minimum((v * rows).astype(int), rows - 1)
    shift = rng.random(rows)[row]
    along = np.modf(u + shift)[0]
    board = (along * 2).astype(int)
    tone = rng.uniform(0.65, 1.0, (rows, 2))[row, board]
    grain = _noise(rng, 8, 128) * 0.5 + _fractal(rng, 4, 6, stretch=2) * 0.5
    edge = np.minimum(np.modf(v * rows)[0] * SIZE / rows, np.modf(along * 2)[0] * SIZE / 2)
    tone = tone * (0.75 + 0.35 * grain) * np.clip(0.45 + edge * 0.35, 0, 1)
    return tone[..., None] * np.array([1.0, rng.uniform(0.65, 0.85), rng.uniform(0.35, 0.65)])


def _grain(rng):
    plane = _noise(rng, 4, 64) * 0.4 + _noise(rng, 8, 256) * 0.3 + _fractal(rng, 2, 4) * 0.3
    rings = 0.5 + 0.5 * np.sin(plane * rng.uniform(8, 30))
    return _mix(plane * 0.7 + rings * 0.3, _colour(rng, 0.5, 0.8, 0.3), _colour(rng, 0.8, 1, 0.1))


def _stripes(rng):
    count = int(rng.integers(3, 14))
    edges = np.sort(rng.random(count))
    palette = np.stack([_colour(rng, saturation=rng.choice([0.1, 0.9])) for _ in range(count + 1)])
    palette[-1] = palette[0]
    column = palette[np.searchsorted(edges, _axes()[1][0])]
    return np.broadcast_to(column, (SIZE, SIZE, 3)) * (0.9 + 0.1 * _fractal(rng, 4, 4)[..., None])


def _checks(rng):
    count = int(rng.choice([2, 4, 8]))
    v, u = _axes()
    plane = ((u * count).astype(int) + (v * count).astype(int)) % 2
    return _mix(plane.astype(np.float32), _colour(rng), _colour(rng))


def _tiles(rng, *, offset: float = 0.0, rows: int | None = None, columns: int | None = None):
    """Tiles with grout; each tile has its own tone; offset shifts every second row."""
    rows = rows or int(rng.choice([1, 2, 4, 6]))
    columns = columns or rows
    v, u = _axes()
    row = np.minimum((v * rows).astype(int), rows - 1)
    along = np.modf(u * columns + offset * (row % 2))[0]
    column = ((u * columns + offset * (row % 2)).astype(int)) % columns
    edge = np.minimum(
        np.minimum(along, 1 - along) / columns,
        np.minimum(np.modf(v * rows)[0], 1 - np.modf(v * rows)[0]) / rows,
    )
    tone = rng.uniform(rng.uniform(0.7, 0.98), 1.0, (rows, columns))[row, column]
    grout = np.clip((edge - rng.uniform(0.002, 0.008)) * 300, 0, 1)
    face = (tone * (0.9 + 0.1 * _fractal(rng, 8, 4)))[..., None] * _colour(rng, 0.5, 1.0, 0.3)
    joint = _colour(rng, 0.2, 0.9, 0.1)
    return joint + grout[..., None] * (face - joint)


def _bricks(rng):
    return _tiles(rng, offset=0.5, rows=8, columns=4)


def _carpet(rng):
    plane = _noise(rng, 256, 256) * 0.5 + _noise(rng, 128, 128) * 0.3 + _fractal(rng, 4, 3) * 0.2
    return _mix(plane, _colour(rng, 0.1, 0.5, 0.3), _colour(rng, 0.5, 1.0, 0.3))


def _weave(rng):
    count = int(rng.choice([16, 32, 64]))
    v, u = _axes()
    plane = 0.5 + 0.25 * (np.sin(2 * np.pi * u * count) + np.sin(2 * np.pi * v * count))
    plane = plane * 0.6 + 0.4 * _noise(rng, 64, 64)
    return _mix(plane, _colour(rng, 0.2, 0.6, 0.4), _colour(rng, 0.5, 1.0, 0.4))


def _write_text(rng, picture, top, left, bottom, right, ink):
    """Put lines of text-like dashes into a rectangle of the picture."""
    line = int(rng.integers(4, 12))
    for y in range(top, bottom - line, line):
        if rng.random() < 0.12:
            continue
        end = right if rng.random() < 0.7 else int(rng.integers(left, right))
        letters = rng.random(max(end - left, 0)) < 0.6
        height = max(line // 2, 1)
        strip = picture[y : y + height, left:end]
        strip[:, letters[: strip.shape[1]]] = ink


def _page(rng):
    picture = np.ones((SIZE, SIZE, 3), np.float32) * rng.uniform(0.85, 1.0)
    margin = int(rng.integers(10, 35))
    _write_text(rng, picture, margin, margin, SIZE - margin, SIZE - margin, rng.uniform(0, 0.4))
    if rng.random() < 0.5:
        _paste_blocks(rng, picture, int(rng.integers(1, 4)), 30, 110)
    return picture


def _paste_blocks(rng, picture, count, smallest, largest):
    """Paste rectangles: flat, graded or noisy, sometimes with text."""
    noise = np.clip(_fractal(rng, 8, 5, gain=0.8) * 2 - 0.5, 0, 1)
    for _ in range(count):
        height, width = rng.integers(smallest, largest, 2)
        top, left = rng.integers(0, SIZE - height), rng.integers(0, SIZE - width)
        block = picture[top : top + height, left : left + width]
        kind = rng.random()
        if kind < 0.4:
            block[:] = _colour(rng)
        elif kind < 0.7:
            ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None]
            block[:] = _mix(np.repeat(ramp, width, 1), _colour(rng), _colour(rng))
        else:
            y, x = rng.integers(0, SIZE - height), rng.integers(0, SIZE - width)
            plane = noise[y : y + height, x : x + width]
            block[:] = _mix(plane, _colour(rng), _colour(rng))
        if rng.random() < 0.5 and height > 24 and width > 24:
            _write_text(rng, block, 4, 4, height - 4, width - 4, _colour(rng))


def _poster(rng):
    plane = _fractal(rng, int(rng.choice([2, 4, 8])), 4)
    picture = _mix(np.clip(plane * 2 - 0.5, 0, 1), _colour(rng), _colour(rng))
    _paste_blocks(rng, picture, int(rng.integers(1, 9)), 20, 160)
    if rng.random() < 0.5:
        border = int(rng.integers(3, 18))
        frame = _colour(rng)
        picture[:border] = picture[-border:] = frame
        picture[:, :border] = picture[:, -border:] = frame
    return picture


def _books(rng):
    """Book spines side by side, with labels, on a dark shelf."""
    picture = np.full((SIZE, SIZE, 3), 0.05, np.float32)
    left = 0
    while left < SIZE:
        width, height = int(rng.integers(7, 30)), int(rng.integers(170, SIZE))
        spine = picture[SIZE - height :, left : left + width]
        spine[:] = _colour(rng, 0.1, 0.95, 1.0)
        label = int(rng.integers(10, height - 40))
        spine[label : label + int(rng.integers(4, 50)), 1:-1] = _colour(rng)
        spine[:, :1] *= 0.4
        left += width
    return picture


def _keyboard(rng):
    body, key = _colour(rng, 0.05, 0.9, 0.05), _colour(rng, 0.05, 0.95, 0.05)
    picture = np.full((SIZE, SIZE, 3), 1.0, np.float32) * body
    for row in range(6):
        left = 6
        while left < SIZE - 10:
            wide = int(rng.choice([12, 12, 12, 18, 24])) if row != 5 else int(rng.choice([14, 90]))
            top = 10 + row * 40
            picture[top : top + 30, left : min(left + wide - 3, SIZE - 6)] = key
            picture[top + 8 : top + 15, left + 3 : left + 6] = 1.0 - key
            left += wide
    return picture


def _screen(rng):
    picture = np.full((SIZE, SIZE, 3), 1.0, np.float32) * _colour(rng, 0.02, 0.7)
    _paste_blocks(rng, picture, int(rng.integers(0, 6)), 40, 180)
    if rng.random() < 0.6:
        _write_text(rng, picture, 12, 12, 220, 240, _colour(rng))
    return picture


def _dots(rng):
    count = int(rng.choice([4, 8, 16]))
    v, u = _axes()
    distance = np.hypot(np.modf(u * count)[0] - 0.5, np.modf(v * count)[0] - 0.5)
    plane = np.clip((rng.uniform(0.2, 0.45) - distance) * 12, 0, 1)
    return _mix(plane, _colour(rng, 0.4, 1.0), _colour(rng))


def _cracked(rng):
    plane = _fractal(rng, 4, 6, gain=0.7)
    lines = np.clip(1.0 - np.abs(plane - 0.5) * rng.uniform(20, 60), 0, 1)
    picture = _mix(_fractal(rng, 8, 5), _colour(rng, 0.5, 0.9, 0.2), _colour(rng, 0.7, 1.0, 0.2))
    return picture * (1.0 - 0.5 * lines[..., None])


def _clutter(rng):
    picture = np.full((SIZE, SIZE, 3), 1.0, np.float32) * _colour(rng)
    _paste_blocks(rng, picture, int(rng.integers(15, 60)), 12, 90)
    return picture


def _outdoors(rng):
    v, _ = _axes()
    sky = _mix(np.repeat(v, SIZE, 1), _colour(rng, 0.8, 1.0, 0.3), _colour(rng, 0.8, 1.0, 0.1))
    land = _mix(_fractal(rng, 8, 5, gain=0.8), _colour(rng, 0.1, 0.5), _colour(rng, 0.4, 0.9))
    horizon = v > rng.uniform(0.3, 0.9) + 0.3 * (_fractal(rng, 8, 4)[:1] - 0.5)
    return np.where(horizon[..., None], land, sky)


def _drawers(rng):
    """Front of a cabinet: drawers or doors with seams and handles."""
    rows, columns = int(rng.integers(1, 5)), int(rng.integers(1, 3))
    picture = np.full((SIZE, SIZE, 3), 1.0, np.float32) * rng.uniform(0.85, 1.0)
    handle = _colour(rng, 0.05, 0.9, 0.1)
    for top in np.linspace(0, SIZE, rows + 1)[:-1].astype(int):
        picture[top : top + 3] *= 0.3
        for left in np.linspace(0, SIZE, columns + 1)[:-1].astype(int):
            picture[:, left : left + 3] *= 0.3
            x, y = left + SIZE // columns // 2, top + SIZE // rows // 3
            long = max(SIZE // columns // 6, 4)
            picture[y : y + 6, x - long : x + long] = handle
    return picture * (0.94 + 0.06 * _fractal(rng, 4, 4)[..., None])


def _door(rng):
    picture = np.full((SIZE, SIZE, 3), 0.95, np.float32)
    if rng.random() < 0.6:
        for top in np.linspace(16, SIZE - 90, int(rng.integers(1, 4))).astype(int):
            picture[top : top + 75, 40:216] *= 0.85
            picture[top + 3 : top + 72, 43:213] /= 0.87
    picture[:, :5] *= 0.5
    picture[:, -5:] *= 0.5
    picture[:4] *= 0.5
    picture[125:133, 216:240] = rng.uniform(0.1, 0.9)
    return picture * (0.94 + 0.06 * _fractal(rng, 4, 4, stretch=1)[..., None])


def _grid(rng):
    count = int(rng.choice([4, 8, 16]))
    v, u = _axes()
    edge = np.minimum(np.modf(u * count)[0], np.modf(v * count)[0])
    plane = np.clip((edge - rng.uniform(0.04, 0.15)) * 30, 0, 1)
    return _mix(plane, _colour(rng, 0.1, 0.7, 0.2), _colour(rng, 0.5, 1.0, 0.2))


def _folds(rng):
    """Curtain or crumpled cloth: soft shading stripes along v."""
    plane = _noise(rng, int(rng.choice([8, 16, 32])), 2) * 0.7 + _fractal(rng, 4, 4) * 0.3
    return _grey(np.clip(0.6 + 0.5 * plane, 0, 1))


# The recipes and how many textures each makes; a texture's number counts through them in order.
RECIPES = {
    'plain': (_plain, 4),
    'cloudy': (_cloudy, 6),
    'speckled': (_speckled, 5),
    'planks': (_planks, 6),
    'grain': (_grain, 6),
    'stripes': (_stripes, 6),
    'checks': (_checks, 3),
    'tiles': (_tiles, 5),
    'bricks': (_bricks, 3),
    'carpet': (_carpet, 4),
    'weave': (_weave, 3),
    'page': (_page, 8),
    'poster': (_poster, 14),
    'books': (_books, 6),
    'keyboard': (_keyboard, 3),
    'screen': (_screen, 6),
    'dots': (_dots, 2),
    'cracked': (_cracked, 3),
    'clutter': (_clutter, 8),
    'outdoors': (_outdoors, 4),
    'drawers': (_drawers, 5),
    'door': (_door, 4),
    'grid': (_grid, 3),
    'folds': (_folds, 4),
}
COPIES = {name: copies for name, (_, copies) in RECIPES.items()}
