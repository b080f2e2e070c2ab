"""A colour file and a 16-bit depth file, what folders of every kind are made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from llm_mde_core import Camera
from llm_mde_train.samples import Sample

Window = tuple[int, int, int, int]  # first row, end row, first column, end column


def read_rgb(path: Path) -> np.ndarray:
    """Decode a colour file as it lies on disk: uint8 (H, W, 3) RGB; ValueError when broken."""
    bgr = _decoded(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def read_depth(path: Path, *, units_per_m: float) -> np.ndarray:
    """
    Decode a 16-bit depth file: float32 (H, W) metres, NaN where it says 0.

    Raises ValueError for a broken file and for one that is not 16 bits in one channel.
    """
    units = _decoded(path, cv2.IMREAD_UNCHANGED)
    if units.dtype != np.uint16 or units.ndim != 2:
        raise ValueError(
            f'{path} must be 16-bit depth in one channel, it is {units.dtype} {units.shape}'
        )
    depth_m = units / np.float32(units_per_m)
    depth_m[units == 0] = np.nan
    return depth_m


def forget_outside(depth_m: np.ndarray, window: Window) -> np.ndarray:
    """Return the depth with NaN outside of a window."""
    top, bottom, left, right = window
    result = np.full_like(depth_m, np.nan)
    result[top:bottom, left:right] = depth_m[top:bottom, left:right]
    return result


@dataclass(frozen=True)
class PairFrame:
    """A pair of files on one pixel grid; depth outside of `window` is taken as unknown."""

    rgb: Path
    depth: Path
    units_per_m: float  # 1000 for millimetres
    camera: Camera
    scene: str
    max_depth_m: float
    stamp_ns: int = 0
    window: Window | None = None

    @property
    def name(self) -> str:
        """Return the name of the colour file."""
        return self.rgb.name

    @property
    def files(self) -> tuple[Path, ...]:
        """Return both files."""
        return self.rgb, self.depth

    def load(self) -> Sample:
        """Decode both files; ValueError names one that is broken or not as its list says."""
        depth_m = read_depth(self.depth, units_per_m=self.units_per_m)
        if self.window is not None:
            depth_m = forget_outside(depth_m, self.window)
        return Sample(
            rgb=read_rgb(self.rgb),
            depth_m=depth_m,
            camera=self.camera,
            scene=self.scene,
            max_depth_m=self.max_depth_m,
            stamp_ns=self.stamp_ns,
        )


def check_files_exist(frames: list[PairFrame], *, hint: str) -> None:
    """Raise ValueError for the first missing file, now and not hours into a training run."""
    for frame in frames:
        for path in frame.files:
            if not path.is_file():
                raise ValueError(f'{path} does not exist; {hint}')


def _decoded(path: Path, flags: int) -> np.ndarray:
    pixels = cv2.imread(str(path), flags)
    if pixels is None:
        raise ValueError(f'cannot read {path}: it is missing or no image')
    return pixels
