"""Recordings in the format of the TUM RGB-D benchmark: rgb.txt, depth.txt, PNG / 5000."""

from __future__ import annotations

from pathlib import Path
import re

import numpy as np

from llm_mde_core import Camera
from llm_mde_train.image_pairs import PairFrame, check_files_exist
from llm_mde_train.stamp_pairs import pair_stamps

UNITS_PER_M = 5000.0
TOLERANCE_NS = 20_000_000  # that of the benchmark's associate.py
# Published with the benchmark; depth is registered to the distorted colour image.
PUBLISHED = {
    '1': ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    '2': ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    '3': ((535.4, 539.2, 320.1, 247.6), ()),
}


def read_tum(
    folder: Path, *, camera: Camera | None = None, max_depth_m: float = 10.0
) -> list[PairFrame]:
    """
    List the pairs of a recording whose stamps differ by at most 20 ms.

    The camera is the published one when the folder's name has freiburg1, 2 or 3 in it. Raises
    ValueError when it is not known, for a line of another form and for missing files.
    """
    camera = camera or _published_camera(folder)
    colors, depths = (_read_list(folder / name) for name in ('rgb.txt', 'depth.txt'))
    stamps = [np.array([stamp for stamp, _ in each], np.int64) for each in (colors, depths)]
    frames = [
        PairFrame(
            rgb=folder / colors[c][1],
            depth=folder / depths[d][1],
            units_per_m=UNITS_PER_M,
            camera=camera,
            scene=folder.resolve().name,
            max_depth_m=max_depth_m,
            stamp_ns=colors[c][0],
        )
        for c, d in pair_stamps(*stamps, tolerance_ns=TOLERANCE_NS)
    ]
    if not frames:
        raise ValueError(f'no stamps of rgb.txt and depth.txt in {folder} lie within 20 ms')
    check_files_exist(frames, hint=f'a list in {folder} names it')
    return frames


def _published_camera(folder: Path) -> Camera:
    found = re.search(r'(?:freiburg|fr)([123])', folder.resolve().name)
    if not found:
        raise ValueError(
            f'the camera of {folder} is not known: its name has no freiburg1, 2 or 3; pass the '
            'camera, or list the frames with their intrinsics in an index.csv'
        )
    (fx, fy, cx, cy), distortion = PUBLISHED[found[1]]
    return Camera(
        width=640,
        height=480,
        fx=fx,
        fy=fy,
        cx=cx,
        cy=cy,
        distortion_model='plumb_bob' if distortion else '',
        distortion=distortion,
    )


def _read_list(path: Path) -> list[tuple[int, str]]:
    """Read lines `seconds file`, comments left out, as nanoseconds and file."""
    if not path.is_file():
        raise ValueError(f'{path} does not exist: {path.parent} is no recording of the TUM format')
    entries = []
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), start=1):
        if line.startswith('#') or not line.strip():
            continue
        found = re.fullmatch(r'(\d+)(?:\.(\d{1,9}))?\s+(\S+)\s*', line)
        if not found:
            raise ValueError(f'{path}:{number} must be "seconds file", it is {line!r}')
        seconds, fraction, name = found[1], found[2] or '', found[3]
        entries.append((int(seconds) * 10**9 + int(fraction.ljust(9, '0')), name))
    return entries
