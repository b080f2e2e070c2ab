"""
What a cheap colour camera makes of the light: exposure, blur, noise, JPEG blocks.

Shapes: B images, H x W pixels.
"""

from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional


def expose(light: torch.Tensor, rngs: list[np.random.Generator]) -> torch.Tensor:
    """Return uint8 (B, H, W, 3) photographs of linear light float32 (B, 3, H, W)."""
    pictures = [_one(picture[None], rng) for picture, rng in zip(light, rngs, strict=True)]
    return torch.cat(pictures).permute(0, 2, 3, 1).contiguous()


def _one(light: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return uint8 (1, 3, H, W); all randomness of one picture comes from its rng."""
    light = _white_balance(light, rng)
    mean = light[..., ::8, ::8].mean().clamp(min=1e-4)
    light = light * (rng.choice([0.16, 0.24, 0.36]) * np.exp(rng.normal(0, 0.35)) / mean)
    light = _blur(light, rng)
    light = light * _vignette(light, strength=rng.uniform(0, 0.35)).to(light)
    light = _noisy(light.clamp_(min=0.0), rng)
    code = _tone(light.clamp_(0.0, 1.0), rng)
    if rng.random() < 0.6:
        code = _jpeg(code, coarseness=float(np.exp(rng.uniform(np.log(0.01), np.log(0.12)))))
    return (code * 255.0 + 0.5).clamp_(0, 255).to(torch.uint8)


def _white_balance(light, rng):
    gains = np.exp(rng.normal(0, 0.07, 3))
    if rng.random() < 0.05:
        return light.mean(1, keepdim=True).expand_as(light) * 1.0
    return light * torch.tensor(gains / gains.mean(), dtype=light.dtype).to(light)[:, None, None]


def _vignette(light, *, strength: float):
    height, width = light.shape[-2:]
    y = torch.linspace(-1, 1, height)[:, None]
    x = torch.linspace(-1, 1, width)[None]
    return 1.0 - 0.5 * strength * (x * x + y * y)


def _blur(light, rng):
    """Blur by defocus (a third of the pictures) or motion (a quarter)."""
    kind = rng.random()
    scale = light.shape[-1] / 320
    if kind < 0.35:
        sigma = rng.uniform(0.3, 1.3) * scale
        reach = max(int(np.ceil(2 * sigma)), 1)
        line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2).to(light)
        line = line / line.sum()
        padded = functional.pad(light, (reach,) * 4, mode='replicate')
        across = sum(w * padded[..., i : i + light.shape[-1]] for i, w in enumerate(line))
        return sum(w * across[..., i : i + light.shape[-2], :] for i, w in enumerate(line))
    if kind < 0.6:
        length, angle = rng.uniform(1, 9) * scale, rng.uniform(0, np.pi)
        reach = int(np.ceil(length / 2)) + 1
        padded = functional.pad(light, (reach,) * 4, mode='replicate')
        steps = np.linspace(-length / 2, length / 2, max(int(length), 2))
        moved = [(int(round(s * np.cos(angle))), int(round(s * np.sin(angle)))) for s in steps]
        height, width = light.shape[-2:]
        return sum(
            padded[..., reach + dy : reach + dy + height, reach + dx : reach + dx + width]
            for dx, dy in moved
        ) / len(moved)
    return light


@lru_cache(maxsize=2)
def _noise_pool(device: str) -> torch.Tensor:
    return torch.randn(1 << 21, generator=torch.Generator().manual_seed(5)).to(device)


def _noisy(light, rng):
    """Add shot and read noise; windows of one pool of normal numbers are random enough."""
    pool = _noise_pool(str(light.device))
    count = light.numel()
    start = int(rng.integers(0, max(len(pool) - count, 1)))
    normal = pool[start : start + count] if count < len(pool) else torch.randn_like(light)
    normal = normal.view(light.shape)
    shot, read = np.exp(rng.uniform(np.log(0.003), np.log(0.03))), rng.uniform(0.0005, 0.006)
    if rng.random() < 0.3:  # demosaicing and video codecs make noise coarse
        normal = 1.5 * functional.avg_pool2d(normal, 3, stride=1, padding=1)
    return light + normal * (shot * shot * light + read * read).sqrt()


def _tone(light, rng):
    """Return display codes in [0, 1]: roughly the square root, with varied toe and contrast."""
    root = light.sqrt()
    code = torch.lerp(root, root.sqrt(), float(rng.uniform(-0.25, 0.25)))
    smooth = code * code * (3.0 - 2.0 * code)
    code = torch.lerp(code, smooth, float(rng.uniform(-0.1, 0.6)))
    saturation = float(rng.uniform(0.7, 1.5))
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
