"""
Adaptation head: image tokens back on their grid, joined with finer levels, to metres.

Shapes: B batch, h and w the grid of image tokens, D width of the tokens, C width of the head.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
import math

import torch
from torch import nn
from torch.nn import functional

from llm_mde_core.config import LLMMDEConfig

LOG_SPREAD_RANGE = (-5.0, 1.5)
# Canonical depth reaches this much beyond the range of metres: a lens a quarter as long as the
# canonical one makes everything look four times as far away.
LENS_RANGE = 4.0


class DepthHead(nn.Module):
    """
    ResNet blocks from the grid up to four times the grid, where finer levels of vision join.

    The grid itself has the tokens alone: what is coarse comes from the language model, which
    would not be heard beside the vision encoder's last layer.
    """

    def __init__(
        self,
        config: LLMMDEConfig,
        *,
        token_dim: int,
        level_channels: tuple[int, int],
        pyramid: bool,
    ) -> None:
        super().__init__()
        dim = config.head_dim
        self.log_min = math.log(config.min_depth_m / LENS_RANGE)
        self.log_max = math.log(config.max_depth_m * LENS_RANGE)
        self.norm = nn.LayerNorm(token_dim)
        self.from_tokens = nn.Conv2d(token_dim, dim, kernel_size=1)
        enlarge = (1, 1) if pyramid else (4, 2)
        self.from_levels = nn.ModuleList(
            nn.ConvTranspose2d(channels, dim, kernel_size=times, stride=times)
            for channels, times in zip(level_channels, enlarge, strict=True)
        )
        self.blocks = nn.ModuleList(ResidualBlock(dim) for _ in range(3))
        self.out = nn.Sequential(
            nn.GroupNorm(8, dim),
            nn.Conv2d(dim, dim // 2, kernel_size=3, padding=1),
            nn.ReLU(),
            DepthAndSpread(dim // 2, 2, kernel_size=1),
        )

    def forward(
        self, tokens: torch.Tensor, levels: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Read tokens (B, h·w, D) and levels, which are or become 4 and 2 times the size of the grid.

        Returns canonical depth in metres and the logarithm of the spread of its logarithm (the
        scale of a Laplace distribution), both (B, 1, 4h, 4w).
        """
        finer, fine = (
            enlarge(level) for enlarge, level in zip(self.from_levels, levels, strict=True)
        )
        rows, columns = (side // 2 for side in fine.shape[-2:])
        grid = self.norm(tokens).transpose(1, 2).unflatten(2, (rows, columns))
        features = self.blocks[2](self.from_tokens(grid))  # (B, C, h, w)
        features = self.blocks[1](_double(features) + fine)  # (B, C, 2h, 2w)
        features = self.blocks[0](_double(features) + finer)  # (B, C, 4h, 4w)
        features = self.out[:-1](features).float()
        # The range of depth spans two decades, too many for the few digits of bf16.
        with _full_precision(features.device.type):
            position, log_spread = self.out[-1](features).chunk(2, dim=1)
        log_depth = self.log_min + (self.log_max - self.log_min) * torch.sigmoid(position)
        return log_depth.exp(), log_spread.clamp(*LOG_SPREAD_RANGE)


class DepthAndSpread(nn.Conv2d):
    """The last convolution; it starts in the middle of the range, so that nothing saturates."""


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions around a shortcut."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, dim)
        self.first = nn.Conv2d(dim, dim, kernel_size=3, padding=1)
        self.second = nn.Conv2d(dim, dim, kernel_size=3, padding=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Keep the shape (B, C, h, w)."""
        return features + self.second(torch.relu(self.first(torch.relu(self.norm(features)))))


def _double(features: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(features, scale_factor=2.0, mode='bilinear', align_corners=False)


def _full_precision(device: str) -> AbstractContextManager[None]:
    """Return what ends autocast, on devices that have it; the meta device has not."""
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
