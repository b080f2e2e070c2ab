"""
KITTI: lists in the format of BTS, depth PNG / 256.

The raw recordings (with their calib_cam_to_cam.txt) and the annotated depth maps are at
https://www.cvlibs.net/datasets/kitti (registration needed); the lists of Eigen's split,
eigen_train_files_with_gt.txt and eigen_test_files_with_gt.txt, in train_test_inputs/ of
https://github.com/cleinc/bts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from llm_mde_core import Camera
from llm_mde_train.bts_list import read_list
from llm_mde_train.image_pairs import check_files_exist, read_depth, read_rgb
from llm_mde_train.samples import Sample

UNITS_PER_M = 256.0
MAX_DEPTH_M = 80.0
NO_DEPTH = 'None'  # what the lists say of an image without annotated depth
HOW_TO_GET = 'llm_mde_train/kitti.py says where to get it'


@dataclass(frozen=True)
class KittiFrame:
    """A rectified image and its annotated depth; the size differs from drive to drive."""

    rgb: Path
    depth: Path
    focal_px: float
    calibration: Path | None  # without it, the centre of the image is taken as the optical axis
    scene: str
    stamp_ns: int

    @property
    def name(self) -> str:
        """Return the name of the image."""
        return self.rgb.name

    @property
    def files(self) -> tuple[Path, ...]:
        """Return both images."""
        return self.rgb, self.depth

    def load(self) -> Sample:
        """Decode both images."""
        rgb = read_rgb(self.rgb)
        height, width = rgb.shape[:2]
        fx, fy, cx, cy = self.focal_px, self.focal_px, (width - 1) / 2, (height - 1) / 2
        if self.calibration is not None:
            fx, fy, cx, cy = _calibrated(self.calibration, self.rgb.parent.parent.name)
        return Sample(
            rgb=rgb,
            depth_m=read_depth(self.depth, units_per_m=UNITS_PER_M),
            camera=Camera(width=width, height=height, fx=fx, fy=fy, cx=cx, cy=cy),
            scene=self.scene,
            max_depth_m=MAX_DEPTH_M,
            stamp_ns=self.stamp_ns,
        )


def read_kitti(
    list_file: Path, *, root: Path | None = None, depth_root: Path | None = None
) -> list[KittiFrame]:
    """
    List pairs in the format of BTS: a line is `rgb depth focal_px`, `None` for no depth.

    Images lie below `root`, the list's folder when None; depth below `depth_root`, else there
    too. The scene is the drive. Raises ValueError for a line of another form and for a missing
    file.
    """
    root = root or list_file.parent
    frames = []
    for number, rgb, depth, focal_px in read_list(list_file):
        if depth == NO_DEPTH:
            continue
        drive = (root / rgb).parents[2]  # DATE/DRIVE/image_02/data/0000000069.png
        calibration = drive.parent / 'calib_cam_to_cam.txt'
        stem = Path(rgb).stem
        frames.append(
            KittiFrame(
                rgb=root / rgb,
                depth=(depth_root or root) / depth,
                focal_px=focal_px,
                calibration=calibration if calibration.is_file() else None,
                scene=drive.name,
                stamp_ns=int(stem) if stem.isdecimal() else number,
            )
        )
    check_files_exist(frames, hint=HOW_TO_GET)
    return frames


@lru_cache(maxsize=16)
def _calibrated(path: Path, image_folder: str) -> tuple[float, float, float, float]:
    """Read fx, fy, cx, cy of the rectified image_02 or image_03 out of P_rect_02 or _03."""
    name = image_folder.replace('image_', 'P_rect_')
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), start=1):
        if line.startswith(f'{name}:'):
            try:
                matrix = np.array(line.partition(':')[2].split(), np.float64).reshape(3, 4)
            except ValueError:
                raise ValueError(f'{path}:{number} must have 12 numbers: {line!r}') from None
            return (*matrix[(0, 1), (0, 1)].tolist(), *matrix[:2, 2].tolist())
    raise ValueError(f'{path} has no line {name}')
