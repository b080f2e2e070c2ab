"""Files that are there whole or not at all, whatever ends the process, a full disk too."""

from __future__ import annotations

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a text file; what had its name stays until it is written."""
    beside = path.with_name(f'{path.name}.new')
    try:
        beside.write_text(text, encoding='utf-8')
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
