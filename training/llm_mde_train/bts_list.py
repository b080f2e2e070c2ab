"""Lists of image pairs in the format of BTS, as NYU Depth v2 and KITTI have them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def read_list(list_file: Path) -> Iterator[tuple[int, str, str, float]]:
    """
    Yield line number, relative paths of colour and depth, and focal length in pixels.

    Empty lines are left out. Raises ValueError for a line that is not `rgb depth focal_px`.
    """
    for number, line in enumerate(list_file.read_text(encoding='utf-8').splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rgb, depth, focal_px = line.split()
            yield number, rgb.lstrip('/'), depth.lstrip('/'), float(focal_px)
        except ValueError:
            raise ValueError(
                f'{list_file}:{number} must be "rgb depth focal", it is {line!r}'
            ) from None
