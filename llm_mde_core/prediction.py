"""What the estimator says about one image; what is not read costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch


@dataclass(frozen=True, eq=False)
class DepthPrediction:
    """
    Depth of one image, on the image's own pixel grid and on the network's device.

    `certainty` is computed when it is first read; `depth_m`, `confidence`, `prompt` and
    `depth_class` come to the host then.
    """

    depth: torch.Tensor  # float32 (H, W), metres along the optical axis; NaN where unknown
    read_certainty: Callable[[], torch.Tensor]
    # seconds spent in 'preprocess' (image to the device), 'network' (image to depth, resizing
    # included) and 'postprocess' (what is left)
    stage_s: dict[str, float]
    read_prompt: Callable[[], tuple[str, str]] = lambda: ('', '')  # the class word, the sentence

    @cached_property
    def certainty(self) -> torch.Tensor:
        """Return the predicted probability of an error below a factor of 1.25: float32 (H, W)."""
        return self.read_certainty()

    @cached_property
    def depth_m(self) -> np.ndarray:
        """Return `depth` on the host, float32 (H, W)."""
        return self.depth.cpu().numpy()

    @cached_property
    def confidence(self) -> np.ndarray:
        """Return `certainty` on the host, float32 (H, W)."""
        return self.certainty.cpu().numpy()

    @property
    def prompt(self) -> str:
        """Return the sentence that described this image; '' without a language model."""
        return self._said[1]

    @property
    def depth_class(self) -> str:
        """Return the word that the adaptive prompt chose; '' without a language model."""
        return self._said[0]

    @cached_property
    def _said(self) -> tuple[str, str]:
        return self.read_prompt()
