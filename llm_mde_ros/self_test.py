"""Images that a network has to see something in before it may serve."""

from __future__ import annotations

import numpy as np
import torch

from llm_mde_core.geometry import Camera

LEAST_SEEN = 0.5  # of a test image: what sees less is no model of any room
BLOCKS = (6, 8)  # rows and columns of a test image
PLAIN = (0, 255)  # grey of the first test images: a covered lens, and a lamp


def self_test_image(camera: Camera, *, number: int) -> np.ndarray:
    """Return black, white, or blocks of random colours, the same each time: uint8 (H, W, 3)."""
    rows, columns = BLOCKS
    blocks = np.random.default_rng(number).integers(0, 256, (rows, columns, 3), np.uint8)
    if number < len(PLAIN):
        blocks[:] = PLAIN[number]
    row = np.arange(camera.height) * rows // camera.height
    column = np.arange(camera.width) * columns // camera.width
    return blocks[row][:, column]


def check_depth(depth: torch.Tensor, min_m: float, max_m: float) -> None:
    """Raise ValueError when the depth (H, W) of a test image is mostly no depth."""
    seen = float(((depth >= min_m) & (depth <= max_m)).float().mean())  # NaN is neither
    if seen < LEAST_SEEN:
        raise ValueError(
            f'it sees depth from {min_m:g} to {max_m:g} m in only {seen:.0%} of a test image'
        )
