"""
What a cheap colour camera makes of the light: exposure, blur, noise, JPEG blocks.

Shapes: B images, H x W pixels.
"""

from functools import lru_cache
import math

import numpy as np
import torch
from torch.nn import functional

from llm_mde_train.room_scene import Dice


def expose(light: torch.Tensor, rngs: list[Dice]) -> torch.Tensor:
    """Return uint8 (B, H, W, 3) photographs of linear light float32 (B, 3, H, W)."""
    pictures = [_one(picture[None], rng) for picture, rng in zip(light, rngs, strict=True)]
    return torch.cat(pictures).permute(0, 2, 3, 1).contiguous()


def _one(light: torch.Tensor, rng: Dice) -> torch.Tensor:
    """Return uint8 (1, 3, H, W); all randomness of one picture comes from its rng."""
    mean = light[..., ::8, ::8].mean().clamp(min=1e-4)
    gain = rng.choice([0.16, 0.24, 0.33, 0.45]) * math.exp(rng.gauss(0, 0.35)) / mean
    light = _blur(light * (gain * _white_balance(rng).to(light)), rng)
    light = light * _vignette(light, strength=rng.uniform(0, 0.35)).to(light)
    light = _noisy(light.clamp_(min=0.0), rng)
    code = _tone(light.clamp_(0.0, 1.0), rng)
    if rng.random() < 0.4:
        code = _jpeg(code, coarseness=rng.log_uniform(0.01, 0.12))
    return (code * 255.0 + 0.5).clamp_(0, 255).to(torch.uint8)


def _white_balance(rng: Dice) -> torch.Tensor:
    """Return gains (3, 1, 1) of the colours."""
    gains = np.exp(rng.normals(3, 0.07))
    return torch.from_numpy((gains / gains.mean()).astype(np.float32))[:, None, None]


def _vignette(light, *, strength: float):
    height, width = light.shape[-2:]
    y = torch.linspace(-1, 1, height)[:, None]
    x = torch.linspace(-1, 1, width)[None]
    return 1.0 - 0.5 * strength * (x * x + y * y)


def _blur(light, rng: Dice):
    """Blur a little always (lens and demosaicing), by defocus or by motion sometimes."""
    kind, scale = rng.random(), light.shape[-1] / 320
    sigma = rng.uniform(0.3, 0.55) if kind > 0.25 else rng.uniform(0.55, 1.4)
    light = _defocused(light, sigma * scale)
    if kind < 0.75:
        return light
    return _moved(light, rng.uniform(1, 9) * scale, rng.uniform(0, math.pi))


def _defocused(light, sigma: float):
    reach = max(math.ceil(2 * sigma - 0.2), 1)
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(reach + 1)]
    total = 2 * sum(weights) - weights[0]
    for axis in (2, 3):
        size = light.shape[axis]
        ends = [light.narrow(axis, i, 1) for i in (0, size - 1)]
        padded = torch.cat([ends[0]] * reach + [light] + [ends[1]] * reach, axis)
        light = light * (weights[0] / total)
        for i in range(1, reach + 1):
            for start in (reach - i, reach + i):
                light.add_(padded.narrow(axis, start, size), alpha=weights[i] / total)
    return light


def _moved(light, length: float, angle: float):
    """Average the picture along a straight shake of so many pixels."""
    reach = math.ceil(length / 2) + 1
    padded = functional.pad(light, (reach,) * 4, mode='replicate')
    steps = np.linspace(-length / 2, length / 2, max(int(length), 2))
    moved = np.rint(np.outer(steps, (math.cos(angle), math.sin(angle)))).astype(int).tolist()
    height, width = light.shape[-2:]
    return sum(
        padded[..., reach + dy : reach + dy + height, reach + dx : reach + dx + width]
        for dx, dy in moved
    ) / len(moved)


@lru_cache(maxsize=2)
def _noise_pool(device: str) -> torch.Tensor:
    return torch.randn(1 << 21, generator=torch.Generator().manual_seed(5)).to(device)


def _noisy(light, rng):
    """Add shot and read noise; windows of one pool of normal numbers are random enough."""
    pool = _noise_pool(str(light.device))
    count = light.numel()
    start = rng.randrange(max(len(pool) - count, 1))
    normal = pool[start : start + count] if count < len(pool) else torch.randn_like(light)
    normal = normal.view(light.shape)
    shot, read = rng.log_uniform(0.003, 0.03), rng.uniform(0.0005, 0.006)
    noisy = light + normal * (shot * shot * light + read * read).sqrt_()
    return _defocused(noisy, 0.5) if rng.random() < 0.3 else noisy  # smoothed by the camera


def _tone(light, rng):
    """Return display codes in [0, 1]: roughly the square root, with varied toe and contrast."""
    root = light.sqrt()
    code = torch.lerp(root, root.sqrt(), rng.uniform(-0.25, 0.25))
    smooth = code * code * (3.0 - 2.0 * code)
    code = torch.lerp(code, smooth, rng.uniform(-0.1, 0.8))
    saturation = rng.uniform(0.7, 1.5) if rng.random() > 0.05 else 0.0
    grey = code.mean(1, keepdim=True)
    return torch.lerp(grey, code, saturation).clamp_(0.0, 1.0)


@lru_cache(maxsize=2)
def _cosines(device: str) -> torch.Tensor:
    """Return the orthonormal 8-point DCT matrix."""
    k, n = np.mgrid[:8, :8]
    matrix = np.cos(np.pi * k * (2 * n + 1) / 16) * np.where(k == 0, np.sqrt(1 / 8), 0.5)
    return torch.from_numpy(matrix.astype(np.float32)).to(device)


def _jpeg(code: torch.Tensor, *, coarseness: float) -> torch.Tensor:
    """Quantise 8x8 blocks of luma like JPEG and halve the resolution of the colour."""
    height, width = code.shape[-2:]
    luma = code.mean(1, keepdim=True)
    colour = functional.interpolate(
        functional.avg_pool2d(code - luma, 2, ceil_mode=True), size=(height, width)
    )
    down, right = -height % 8, -width % 8
    padded = functional.pad(luma, (0, right, 0, down), mode='replicate')
    rows, columns = padded.shape[-2] // 8, padded.shape[-1] // 8
    blocks = padded.view(rows, 8, columns, 8).transpose(1, 2)
    cosines = _cosines(str(code.device))
    waves = cosines @ blocks @ cosines.T
    order = torch.arange(8, device=code.device)
    steps = coarseness * (1.0 + 0.6 * (order[:, None] + order[None]))
    blocks = cosines.T @ ((waves / steps).round_() * steps) @ cosines
    luma = blocks.transpose(1, 2).reshape(padded.shape)[..., :height, :width]
    return luma + colour
