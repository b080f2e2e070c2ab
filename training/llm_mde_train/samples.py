"""One sample type for every source of colour and depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llm_mde_core import Camera


@dataclass(frozen=True)
class Sample:
    """A colour image with its depth on the same pixel grid; ValueError when sizes differ."""

    rgb: np.ndarray  # uint8 (H, W, 3) RGB
    depth_m: np.ndarray  # float32 (H, W), metres along the optical axis; NaN where unknown
    camera: Camera
    scene: str
    max_depth_m: float = 10.0  # depth beyond this is not to be trusted

    def __post_init__(self) -> None:
        size = (self.camera.height, self.camera.width)
        if self.rgb.shape != (*size, 3) or self.depth_m.shape != size:
            raise ValueError(
                f'colour {self.rgb.shape}, depth {self.depth_m.shape} and camera {size} '
                f'of a sample of {self.scene!r} do not fit each other'
            )
