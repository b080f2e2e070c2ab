"""Folders of colour and depth images listed in an `index.csv`."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np

from llm_mde_core import Camera
from llm_mde_train.samples import Sample

TRUSTED_TIERS = ('A', 'B')


def read_index(index: Path, *, sets: list[str] | None = None) -> list[Sample]:
    """
    Read the pairs of `sets` (all sets when None) whose tier is A or B.

    Paths are relative to the index; depth images are 16-bit millimetres, 0 unknown. Raises
    ValueError for a set that the index does not have and for a pair that is not as listed.
    """
    with index.open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    known = sorted({row['set'] for row in rows})
    for name in sets or []:
        if name not in known:
            raise ValueError(f'no set {name!r} in {index}: it has {", ".join(known)}')
    return [
        _read_row(row, index.parent)
        for row in rows
        if row['tier'] in TRUSTED_TIERS and (sets is None or row['set'] in sets)
    ]


def _read_row(row: dict[str, str], folder: Path) -> Sample:
    bgr = cv2.imread(str(folder / row['rgb']), cv2.IMREAD_COLOR)
    depth_mm = cv2.imread(str(folder / row['depth']), cv2.IMREAD_UNCHANGED)
    if bgr is None or depth_mm is None:
        raise ValueError(f'cannot read the pair {row["rgb"]} and {row["depth"]} in {folder}')
    if depth_mm.dtype != np.uint16:
        raise ValueError(f'{row["depth"]} must be 16-bit millimetres, it is {depth_mm.dtype}')
    camera = Camera(
        width=int(row['width']),
        height=int(row['height']),
        fx=float(row['fx']),
        fy=float(row['fy']),
        cx=float(row['cx']),
        cy=float(row['cy']),
    )
    depth_m = depth_mm.astype(np.float32) / np.float32(1000.0)
    depth_m[depth_mm == 0] = np.nan
    return Sample(
        rgb=cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB),
        depth_m=depth_m,
        camera=camera,
        scene=row['scene'],
        max_depth_m=float(row['recommended_max_depth_m']),
    )
