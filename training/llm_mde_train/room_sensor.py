"""
What a cheap colour camera makes of the light: exposure, blur, noise, JPEG blocks.

Shapes: B images, H x W pixels.
"""

from dataclasses import dataclass
from functools import lru_cache
import math

import numpy as np
import torch
from torch.nn import functional

from llm_mde_train.room_scene import Dice


@dataclass(frozen=True)
class Sensor:
    """
    How one picture is taken; the defaults are a good camera held still.

    brightness: mean linear light of the picture before clipping; white_balance: RGB gains;
    sharpness_px: sigma of the lens's blur at 320 pixels width; shake_px and shake_rad: length and
    direction of motion blur; shot, read: noise; curve, contrast: tone; coarseness: JPEG, 0 none.
    """

    brightness: float = 0.3
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    sharpness_px: float = 0.35
    shake_px: float = 0.0
    shake_rad: float = 0.0
    vignette: float = 0.1
    shot: float = 0.006
    read: float = 0.001
    smooth_noise: bool = False
    curve: float = 0.0
    contrast: float = 0.3
    saturation: float = 1.1
    coarseness: float = 0.0


def sample_sensor(rng: Dice) -> Sensor:
    """Return a random camera, from good to poor."""
    gains = np.exp(rng.normals(3, 0.07))
    return Sensor(
        brightness=rng.choice([0.2, 0.28, 0.36, 0.48]) * math.exp(rng.gauss(0, 0.35)),
        white_balance=tuple((gains / gains.mean()).tolist()),
        sharpness_px=rng.uniform(0.2, 0.45) if rng.random() > 0.12 else rng.uniform(0.45, 1.1),
        shake_px=rng.uniform(1, 7) if rng.random() < 0.12 else 0.0,
        shake_rad=rng.uniform(0, math.pi),
        vignette=rng.uniform(0, 0.35),
        shot=rng.log_uniform(0.002, 0.02),
        read=rng.log_uniform(0.0003, 0.004),
        smooth_noise=rng.random() < 0.3,
        curve=rng.uniform(-0.25, 0.25),
        contrast=rng.uniform(0.1, 1.3),
        saturation=rng.uniform(0.7, 1.5) if rng.random() > 0.05 else 0.0,
        coarseness=rng.log_uniform(0.01, 0.12) if rng.random() < 0.4 else 0.0,
    )


def expose(light: torch.Tensor, sensors: list[Sensor], rngs: list[Dice]) -> torch.Tensor:
    """Return uint8 (B, H, W, 3) photographs of linear light float32 (B, 3, H, W)."""
    pictures = [
        _one(picture[None], sensor, rng)
        for picture, sensor, rng in zip(light, sensors, rngs, strict=True)
    ]
    return torch.cat(pictures).permute(0, 2, 3, 1).contiguous()


def _one(light: torch.Tensor, sensor: Sensor, rng: Dice) -> torch.Tensor:
    """Return uint8 (1, 3, H, W); the rng only chooses the noise."""
    mean = light[..., ::8, ::8].mean().clamp(min=1e-4)
    balance = torch.tensor(sensor.white_balance, device=light.device)[:, None, None]
    scale = light.shape[-1] / 320
    light = _defocused(light * (sensor.brightness / mean * balance), sensor.sharpness_px * scale)
    if sensor.shake_px > 0:
        light = _moved(light, sensor.shake_px * scale, sensor.shake_rad)
    light = light * _vignette(light, strength=sensor.vignette).to(light)
    light = _noisy(light.clamp_(min=0.0), sensor, rng)
    code = _tone(light.clamp_(0.0, 1.0), sensor)
    if sensor.coarseness > 0:
        code = _jpeg(code, coarseness=sensor.coarseness)
    return (code * 255.0 + 0.5).clamp_(0, 255).to(torch.uint8)


def _vignette(light, *, strength: float):
    height, width = light.shape[-2:]
    y = torch.linspace(-1, 1, height)[:, None]
    x = torch.linspace(-1, 1, width)[None]
    return 1.0 - 0.5 * strength * (x * x + y * y)


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


def _noisy(light, sensor: Sensor, rng: Dice):
    """Add shot and read noise; windows of one pool of normal numbers are random enough."""
    pool = _noise_pool(str(light.device))
    count = light.numel()
    pool = pool.repeat(-(-2 * count // len(pool))) if 2 * count > len(pool) else pool
    start = rng.randrange(len(pool) - count)
    normal = pool[start : start + count].view(light.shape)
    noisy = light + normal * (sensor.shot**2 * light + sensor.read**2).sqrt_()
    return _defocused(noisy, 0.5) if sensor.smooth_noise else noisy


def _tone(light, sensor: Sensor):
    """Return display codes in [0, 1]: roughly the square root, with varied toe and contrast."""
    root = light.sqrt()
    code = torch.lerp(root, root.sqrt(), sensor.curve)
    code = torch.lerp(code, code * code * (3.0 - 2.0 * code), sensor.contrast)
    return torch.lerp(code.mean(1, keepdim=True), code, sensor.saturation).clamp_(0.0, 1.0)


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
