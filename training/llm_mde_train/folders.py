"""Folders of colour and depth images listed in an `index.csv`."""

from __future__ import annotations

import csv
from pathlib import Path

from llm_mde_core import Camera
from llm_mde_train.image_pairs import PairFrame, check_files_exist

TRUSTED_TIERS = ('A', 'B')
MILLIMETRES_PER_M = 1000.0


def read_index(index: Path, *, sets: list[str] | None = None) -> list[PairFrame]:
    """
    List the pairs of `sets` (all sets when None) whose tier is A or B; decoded when loaded.

    Paths are relative to the index; depth images are 16-bit millimetres, 0 unknown. The index
    has no times: the number of the row orders the frames. Raises ValueError for a set that the
    index does not have and for a file that is missing.
    """
    with index.open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    known = sorted({row['set'] for row in rows})
    for name in sets or []:
        if name not in known:
            raise ValueError(f'no set {name!r} in {index}: it has {", ".join(known)}')
    frames = [
        _frame(row, index.parent, number=number)
        for number, row in enumerate(rows)
        if row['tier'] in TRUSTED_TIERS and (sets is None or row['set'] in sets)
    ]
    check_files_exist(frames, hint=f'{index} lists it')
    return frames


def _frame(row: dict[str, str], folder: Path, *, number: int) -> PairFrame:
    camera = Camera(
        width=int(row['width']),
        height=int(row['height']),
        fx=float(row['fx']),
        fy=float(row['fy']),
        cx=float(row['cx']),
        cy=float(row['cy']),
    )
    return PairFrame(
        rgb=folder / row['rgb'],
        depth=folder / row['depth'],
        units_per_m=MILLIMETRES_PER_M,
        camera=camera,
        scene=row['scene'],
        max_depth_m=float(row['recommended_max_depth_m']),
        stamp_ns=number,
    )
