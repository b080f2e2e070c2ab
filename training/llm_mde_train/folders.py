"""Folders of colour and depth images listed in an `index.csv`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TypeVar

from llm_mde_core import Camera
from llm_mde_train.image_pairs import PairFrame, check_files_exist

TRUSTED_TIERS = ('A', 'B')
MILLIMETRES_PER_M = 1000.0
SIZES = ('width', 'height')
NUMBERS = ('fx', 'fy', 'cx', 'cy', 'recommended_max_depth_m')
COLUMNS = ('set', 'tier', 'scene', 'rgb', 'depth', *SIZES, *NUMBERS)
Number = TypeVar('Number', int, float)
LINE = 'line of the index'  # where a row is, beside its columns


def read_index(index: Path, *, sets: list[str] | None = None) -> list[PairFrame]:
    """
    List the pairs of `sets` (all sets when None) whose tier is A or B; decoded when loaded.

    Paths are relative to the index; depth images are 16-bit millimetres, 0 unknown. The index
    has no times: the number of the row orders the frames. Raises ValueError for a set that the
    index does not have, for a column or file that is missing and for what should be a number.
    """
    with index.open(newline='', encoding='utf-8') as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f'{index}:1 has no column {", ".join(missing)}')
        rows = [row | {LINE: f'{index}:{reader.line_num}'} for row in reader]
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
    width, height = (_number(row, name, int) for name in SIZES)
    fx, fy, cx, cy, max_depth_m = (_number(row, name, float) for name in NUMBERS)
    return PairFrame(
        rgb=folder / row['rgb'],
        depth=folder / row['depth'],
        units_per_m=MILLIMETRES_PER_M,
        camera=Camera(width=width, height=height, fx=fx, fy=fy, cx=cx, cy=cy),
        scene=row['scene'],
        max_depth_m=max_depth_m,
        stamp_ns=number,
    )


def _number(row: dict[str, str], name: str, kind: type[Number]) -> Number:
    try:
        return kind(row[name])
    except (TypeError, ValueError):  # TypeError: the row ends before this column
        raise ValueError(f'{row[LINE]}: {name} must be a number, it is {row[name]!r}') from None
