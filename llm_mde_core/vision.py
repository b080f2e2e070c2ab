"""
Vision encoder: patch tokens on their grid and two finer levels, from any ViT of transformers.

Shapes: B batch, H and W pixels of the network's input, h = H / patch and w = W / patch the
grid, N = h·w tokens, Dv width of the encoder.
"""

from __future__ import annotations

import inspect

import torch
from torch import nn
from transformers import AutoModel

from llm_mde_core.config import LLMMDEConfig


class VisionEncoder(nn.Module):
    """
    Run a ViT (ViT, DINOv2 and their kin) and drop everything that is not a patch token.

    With a stem, convolutions reduce the image first and the ViT reads their last map with a
    patch size of 1.
    """

    def __init__(self, config: LLMMDEConfig) -> None:
        super().__init__()
        self.level_layers = config.vision_levels
        self.patch_px = config.patch_px
        self.stem = ConvStem(config.stem_channels) if config.stem_channels else None
        # A dtype in the configuration would be that of a file it was read from.
        self.backbone = AutoModel.from_config(
            config.vision_config, dtype=torch.get_default_dtype()
        )
        self.backbone.pooler = None  # its output is never used
        # ViT wants to be told that the grid may differ from its own; DINOv2 always allows it.
        accepts_any_grid = (
            'interpolate_pos_encoding' in inspect.signature(self.backbone.forward).parameters
        )
        # return_dict: whatever its configuration says.
        self._options = {'output_hidden_states': self.stem is None, 'return_dict': True}
        if accepts_any_grid:
            self._options['interpolate_pos_encoding'] = True

        width = config.vision_config.hidden_size
        stem = config.stem_channels
        self.level_channels = (stem[-3], stem[-2]) if stem else (width, width)
        self.levels_are_a_pyramid = bool(stem)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """
        Turn normalised pixels (B, 3, H, W) into patch tokens and levels.

        Returns tokens (B, N, Dv) in row-major order of the grid, and two maps, finer first: with a
        stem two of its own, at 4 and 2 times the grid, otherwise two layers on the grid, which
        the head enlarges.
        """
        rows, columns = (side // self.patch_px for side in pixels.shape[-2:])
        details = []
        if self.stem is not None:
            details = self.stem(pixels)
            pixels = details[-1]
        output = self.backbone(pixels, **self._options)

        # [CLS], registers … come first; the patches are the last N tokens.
        patches = output.last_hidden_state[:, -rows * columns :]  # (B, N, Dv)
        if self.stem is not None:
            return patches, details[-3:-1]
        maps = [
            tokens_to_grid(
                output.hidden_states[layer][:, -rows * columns :], rows=rows, columns=columns
            )
            for layer in self.level_layers
        ]
        return patches, maps


class ConvStem(nn.Module):
    """Halve the resolution once per stage."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        if len(channels) < 3:
            raise ValueError(f'a stem needs at least three stages, got channels {channels}')
        self.stages = nn.ModuleList(
            StemStage(previous, current, residual=index > 0)
            for index, (previous, current) in enumerate(
                zip([3, *channels[:-1]], channels, strict=True)
            )
        )

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Return one map per stage: (B, channels[i], H / 2^(i+1), W / 2^(i+1))."""
        maps = []
        for stage in self.stages:
            pixels = stage(pixels)
            maps.append(pixels)
        return maps


class StemStage(nn.Module):
    """Strided 3 × 3 convolution, then a residual block except at the costly first stage."""

    def __init__(self, channels_in: int, channels_out: int, *, residual: bool) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=2, padding=1)
        # Not BatchNorm: rendered and real images share batches and must not share statistics.
        self.norm = nn.GroupNorm(8, channels_out)
        self.block = (
            nn.Sequential(
                nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1),
                nn.GroupNorm(8, channels_out),
                nn.ReLU(),
                nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1),
            )
            if residual
            else None
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Turn (B, C_in, h, w) into (B, C_out, h / 2, w / 2)."""
        features = torch.relu(self.norm(self.down(features)))
        return features if self.block is None else torch.relu(features + self.block(features))


def tokens_to_grid(tokens: torch.Tensor, *, rows: int, columns: int) -> torch.Tensor:
    """Lay tokens (B, rows·columns, C) out as a map (B, C, rows, columns)."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, rows, columns)
