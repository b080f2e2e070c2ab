"""All the real frames that a training run may learn from, and what tells them from others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
import hashlib
from pathlib import Path
from typing import Any

from llm_mde_train.folders import read_index
from llm_mde_train.frame_cache import CACHE_BYTES, cached
from llm_mde_train.kitti import read_kitti
from llm_mde_train.nyu import read_nyu, read_nyu_list
from llm_mde_train.rosbag_frames import read_bag
from llm_mde_train.samples import Frame, Sample
from llm_mde_train.tum import read_tum


def training_frames(
    *,
    index: str = '',
    sets: Sequence[str] = (),
    bags: Sequence[str | Mapping[str, Any]] = (),
    nyu: str = '',
    nyu_list: str = '',
    kitti: str = '',
    tum: Sequence[str] = (),
    cache_bytes: int = CACHE_BYTES,
    told: Callable[[str], object] = lambda _: None,
) -> list[Frame]:
    """
    List the frames of every source that is named; nothing is decoded, up to `cache_bytes` kept.

    `index` is an index.csv, of which `sets` are read; `bags` are recordings, or what
    `read_bag` is to be told of one, its `path` among it; `told` hears what each gave. `nyu` is the
    labelled .mat, of which the training split is read, with splits.mat beside it; `nyu_list` and
    `kitti` are lists of BTS, in the folder where their paths begin; `tum` are folders. Raises
    ValueError for a source that is not there or not of its form.
    """
    frames: list[Frame] = []
    if index:
        frames += read_index(Path(index), sets=list(sets))
    elif sets:
        raise ValueError(f'the sets {", ".join(sets)} are of which index? name its index.csv')
    for bag in bags:
        named = {'path': bag} if isinstance(bag, str) else bag
        found = read_bag(**(named | {'path': Path(named['path'])}))
        told(f'{named["path"]}: {found.summary()}')
        frames += found.frames
    if nyu:
        frames += read_nyu(Path(nyu), split='train')
    if nyu_list:
        frames += read_nyu_list(Path(nyu_list))
    if kitti:
        frames += read_kitti(Path(kitti))
    for folder in tum:
        frames += read_tum(Path(folder))
    return cached(frames, max_bytes=cache_bytes)


def fingerprint(frames: Iterable[Frame]) -> str:
    """
    Return 16 letters that change when frames come, go, change places or files change size.

    Cheap: files are not read. Where they lie and when they were written does not matter, so that
    a copied data set is the same one.
    """

    @cache
    def described(path: Path) -> str:
        return f'{path.name} {path.stat().st_size}'

    digest = hashlib.sha256()
    for frame in frames:
        digest.update(f'{frame.scene} {frame.stamp_ns} '.encode())
        digest.update(' '.join(described(path) for path in frame.files).encode())
        if isinstance(frame, Sample):
            digest.update(frame.rgb.tobytes() + frame.depth_m.tobytes())
        digest.update(b'\n')
    return digest.hexdigest()[:16]
