"""
One frame as a function of tensors: what is compiled, exported and measured.

Shapes: H and W pixels of the image, Hn and Wn of the network's input, T prompt length.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import nn

from llm_mde_core.constants import Constants
from llm_mde_core.image import Fit

CONFIDENT_RATIO = 1.25  # confidence is the predicted probability of an error below this (δ1)


class FrameOutput(NamedTuple):
    """Depth and what else is said about one image, on the network's device."""

    depth: torch.Tensor  # float32 (H, W), metres, NaN beyond what the model can see
    certainty: torch.Tensor  # float32 (Hn, Wn), 0 to 1; few ask for it on the image's grid
    prompt_ids: torch.Tensor | None  # int64 (T,), -1 where unused; None without language
    depth_class: torch.Tensor | None  # int64 (), index of the class word; None without language


class Frame(nn.Module):
    """The path from an image of one size and lens to its depth, all on the network's device."""

    def __init__(self, model: nn.Module, fit: Fit, *, height: int, width: int) -> None:
        super().__init__()
        self.model = model
        config: Any = model.config
        self.spread_factor: float = config.spread_factor
        self.max_depth_m: float = config.max_depth_m
        self.fit = fit
        self.height = height
        self.width = width

    def forward(
        self, rgb: torch.Tensor, focal_px: torch.Tensor, constants: Constants | None
    ) -> FrameOutput:
        """
        Take an image, uint8 (H, W, 3) RGB, and the focal length (1,) of the fitted image.

        `constants` are those of the model, None without language.
        """
        pixels = self.fit.to_network(rgb.permute(2, 0, 1)[None])
        output = self.model(pixels, focal_px, constants)
        bounded = output.predicted_depth.float()
        # At the bound it only says that something is beyond what it can see.
        seen = bounded.masked_fill(bounded >= self.max_depth_m, math.nan)
        depth = self.fit.depth_to_image(seen, height=self.height, width=self.width)
        return FrameOutput(
            depth=depth[0],
            certainty=confidence_of(output.log_spread, factor=self.spread_factor)[0],
            prompt_ids=None if output.prompt_ids is None else output.prompt_ids[0],
            depth_class=None if output.depth_class is None else output.depth_class[0],
        )


def confidence_of(log_spread: torch.Tensor, *, factor: float = 1.0) -> torch.Tensor:
    """Return the probability of an error below 1.25, from factor times the scale of a Laplace."""
    return 1.0 - torch.exp(-math.log(CONFIDENT_RATIO) / (factor * log_spread.float().exp()))
