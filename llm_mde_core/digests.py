"""Digests of files: which weights served, and whether they are those that somebody published."""

from __future__ import annotations

from collections.abc import Iterable
import hashlib
from pathlib import Path

SUMS = 'SHA256SUMS'  # as `sha256sum *.json *.safetensors > SHA256SUMS` writes it
READ = ('.json', '.safetensors', '.onnx')  # configuration and tokenizer say as much as weights
BLOCK_BYTES = 2**20
MAX_SUMS_BYTES = 100_000


def sha256_of(files: Iterable[Path]) -> str:
    """Return the digest of files, one after the other, hexadecimal; of one that of sha256sum."""
    digest = hashlib.sha256()
    for file in files:
        with file.open('rb') as stream:
            while block := stream.read(BLOCK_BYTES):  # a model may have gigabytes
                digest.update(block)
    return digest.hexdigest()


def check_sums(folder: Path) -> None:
    """
    Raise ValueError when a file is not the one that the folder's SHA256SUMS was written for.

    So it is for a file that is read and not listed. A folder without the list is not checked.
    """
    sums = folder / SUMS
    if not sums.is_file():
        return
    if sums.stat().st_size > MAX_SUMS_BYTES:
        raise ValueError(f'{sums} is too large for a list of digests')
    unlisted = {file.name for file in folder.iterdir() if file.suffix in READ}
    for line in sums.read_text(errors='replace').splitlines():
        digest, _, name = line.partition(' ')
        name = name.removeprefix(' ').removeprefix('*')  # text or binary
        if Path(name).name != name:
            raise ValueError(f'{sums} names {name!r}, which is no file of its folder')
        if not (folder / name).is_file() or sha256_of([folder / name]) != digest:
            raise ValueError(
                f'{folder / name} is not the file that {sums} was written for: it is damaged or '
                'somebody changed it. Get the model again, or write the digests anew'
            )
        unlisted.discard(name)
    if unlisted:
        raise ValueError(
            f'{sums} does not list {", ".join(sorted(unlisted))}: write the digests anew if you '
            'trust all files there'
        )
