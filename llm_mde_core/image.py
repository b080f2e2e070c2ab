"""
Between an image of any size and lens and the network's input: one focal length, whole patches.

Shapes: B batch, H and W pixels of the image, Hn and Wn of the network's input.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch.nn import functional
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import make_flat_list_of_images
from transformers.utils import IMAGE_PROCESSOR_NAME

if TYPE_CHECKING:
    from llm_mde_core.config import LLMMDEConfig


UNKNOWN_LENS_DEG = 60.0  # field of view along the long side


@dataclass(frozen=True)
class Fit:
    """
    How the images of one camera become inputs of the network.

    An image is resized to (`height`, `width`), so that its focal length becomes the canonical
    one: through whatever lens, a thing of one size at one distance covers as many pixels. Only
    when its long side would exceed the network's image size is it made smaller. Its last row and
    column are repeated until the sides are (`padded_height`, `padded_width`), whole patches.
    """

    height: int
    width: int
    padded_height: int
    padded_width: int

    @classmethod
    def of(
        cls,
        *,
        height: int,
        width: int,
        focal_px: float,
        canonical_focal_px: float,
        image_size: int,
        patch_px: int,
    ) -> Fit:
        """Fit images of (height, width) and a focal length; ValueError for an empty one."""
        if height < 1 or width < 1:
            raise ValueError(f'an image needs at least one pixel, got {height} x {width}')
        scale = min(canonical_focal_px / focal_px, image_size / max(height, width))
        fitted_height, fitted_width = (max(1, round(side * scale)) for side in (height, width))
        return cls(
            height=fitted_height,
            width=fitted_width,
            padded_height=-(-fitted_height // patch_px) * patch_px,
            padded_width=-(-fitted_width // patch_px) * patch_px,
        )

    def to_network(self, rgb: torch.Tensor) -> torch.Tensor:
        """Resize images (B, 3, H, W), uint8 or 0 to 1, to (B, 3, Hn, Wn), 0 to 1."""
        shrinks = self.height <= rgb.shape[-2] and self.width <= rgb.shape[-1]
        if rgb.dtype == torch.uint8 and not (shrinks and rgb.device.type == 'cpu'):
            rgb = rgb.float() / 255.0
        if rgb.shape[-2:] != (self.height, self.width):
            # On the CPU bytes shrink ten times faster than floats, rounded to the nearest byte.
            rgb = functional.interpolate(
                rgb,
                size=(self.height, self.width),
                mode='bilinear',
                align_corners=False,
                antialias=True,
            )
        pixels = rgb.float() / 255.0 if rgb.dtype == torch.uint8 else rgb
        pad = (0, self.padded_width - self.width, 0, self.padded_height - self.height)
        return functional.pad(pixels, pad, mode='replicate') if any(pad) else pixels

    def to_image(self, maps: torch.Tensor, *, height: int, width: int) -> torch.Tensor:
        """Cut the padding off maps (B, Hn, Wn) and enlarge them to the image's grid (B, H, W)."""
        inside = maps[:, None, : self.height, : self.width]
        return functional.interpolate(
            inside, size=(height, width), mode='bilinear', align_corners=False
        )[:, 0]

    def depth_to_image(self, depth_m: torch.Tensor, *, height: int, width: int) -> torch.Tensor:
        """Do the same for depth: 1/z is interpolated, so a plane stays one; no overshoot."""
        # 1.0 / x would be computed as a reciprocal and a product.
        return self.to_image(depth_m.reciprocal(), height=height, width=width).reciprocal()


class LLMMDEImageProcessor(BaseImageProcessor):
    """Preprocessing for `pipeline('depth-estimation')`; the network itself normalises."""

    model_input_names: ClassVar[list[str]] = ['pixel_values']

    def __init__(
        self,
        image_size: int = 320,
        patch_px: int = 16,
        canonical_focal_px: float = 260.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image_size = image_size
        self.patch_px = patch_px
        self.canonical_focal_px = canonical_focal_px

    @classmethod
    def from_config(cls, config: LLMMDEConfig) -> LLMMDEImageProcessor:
        """Take the sizes from a model's configuration."""
        return cls(
            image_size=config.image_size,
            patch_px=config.patch_px,
            canonical_focal_px=config.canonical_focal_px,
        )

    def check_file(self, folder: str | Path) -> None:
        """
        Raise ValueError when the folder's own preprocessing, if it has any, is another one.

        Pipelines of transformers take it, the estimator goes by config.json: metres would differ.
        """
        if not (Path(folder) / IMAGE_PROCESSOR_NAME).is_file():
            return
        other = type(self).from_pretrained(folder, local_files_only=True)
        for name in ('image_size', 'patch_px', 'canonical_focal_px'):
            said, needed = getattr(other, name), getattr(self, name)
            if said != needed:
                raise ValueError(
                    f'{Path(folder) / IMAGE_PROCESSOR_NAME} says {name} {said}, config.json says '
                    f'{needed}: they are not of one model, get both again'
                )

    def fit(self, *, height: int, width: int, focal_px: float | None = None) -> Fit:
        """
        Return how an image of this size and focal length enters the network.

        A pipeline of transformers knows no camera: its images are taken as `UNKNOWN_LENS_DEG`
        wide.
        """
        if focal_px is None:
            focal_px = max(height, width) / 2 / math.tan(math.radians(UNKNOWN_LENS_DEG) / 2)
        return Fit.of(
            height=height,
            width=width,
            focal_px=focal_px,
            canonical_focal_px=self.canonical_focal_px,
            image_size=self.image_size,
            patch_px=self.patch_px,
        )

    def preprocess(self, images: Any, return_tensors: str | None = 'pt', **_: Any) -> BatchFeature:
        """Turn PIL images or uint8 arrays (H, W, 3) of one size into (B, 3, Hn, Wn), 0 to 1."""
        arrays = [_to_rgb(image) for image in make_flat_list_of_images(images)]
        sizes = {array.shape for array in arrays}
        if len(sizes) > 1:
            raise ValueError(f'a batch needs images of one size, got {sorted(sizes)}')
        rgb = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
        fit = self.fit(height=rgb.shape[2], width=rgb.shape[3])
        return BatchFeature({'pixel_values': fit.to_network(rgb)}, tensor_type=return_tensors)

    def post_process_depth_estimation(
        self, outputs: Any, target_sizes: list[tuple[int, int]]
    ) -> list[dict[str, torch.Tensor]]:
        """Bring `predicted_depth` to the images' own sizes (height, width); metres, float32."""
        results = []
        for depth, (height, width) in zip(outputs['predicted_depth'], target_sizes, strict=True):
            fit = self.fit(height=height, width=width)
            enlarged = fit.depth_to_image(depth[None].float(), height=height, width=width)
            results.append({'predicted_depth': enlarged[0]})
        return results


def _to_rgb(image: Any) -> np.ndarray:
    """Return uint8 (H, W, 3) from a PIL image of any mode or an array."""
    array = np.array(image.convert('RGB') if hasattr(image, 'convert') else image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f'an image must be uint8 (H, W, 3) RGB, got {array.dtype} {array.shape}')
    return array
