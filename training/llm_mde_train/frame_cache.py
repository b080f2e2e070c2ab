"""Decode frames once, or ahead of their use, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
import itertools
from pathlib import Path
from threading import Lock

from llm_mde_train.samples import Frame, Sample

CACHE_BYTES = 2**29


class FrameCache:
    """
    The samples that were used last, up to `max_bytes` in each process.

    A copy in another process begins empty: pixels are not sent between processes.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._samples: OrderedDict[int, Sample] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def __reduce__(self) -> tuple[type[FrameCache], tuple[int]]:
        return FrameCache, (self.max_bytes,)

    def load(self, key: int, frame: Frame) -> Sample:
        """Return the frame's sample, decoded when it is not kept under the key."""
        with self._lock:
            if key in self._samples:
                self._samples.move_to_end(key)
                return self._samples[key]
        sample = frame.load()
        sample.rgb.flags.writeable = sample.depth_m.flags.writeable = False  # it is shared
        with self._lock:
            if key not in self._samples:
                self._samples[key] = sample
                self._bytes += _size(sample)
            while self._bytes > self.max_bytes:
                self._bytes -= _size(self._samples.popitem(last=False)[1])
        return sample


def _size(sample: Sample) -> int:
    return sample.rgb.nbytes + sample.depth_m.nbytes


@dataclass(frozen=True)
class CachedFrame:
    """A frame whose sample is kept in a cache that it shares with others."""

    frame: Frame
    key: int
    cache: FrameCache

    @property
    def scene(self) -> str:
        """Return the frame's scene."""
        return self.frame.scene

    @property
    def stamp_ns(self) -> int:
        """Return the frame's stamp."""
        return self.frame.stamp_ns

    @property
    def name(self) -> str:
        """Return the frame's name."""
        return self.frame.name

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the frame's files."""
        return self.frame.files

    def load(self) -> Sample:
        """Return the sample, decoded or kept; its arrays are read-only."""
        return self.cache.load(self.key, self.frame)


def cached(frames: Iterable[Frame], *, max_bytes: int = CACHE_BYTES) -> list[Frame]:
    """Return the same frames, of which up to `max_bytes` stay decoded in each process."""
    cache = FrameCache(max_bytes)
    return [
        frame if isinstance(frame, Sample) else CachedFrame(frame, key, cache)
        for key, frame in enumerate(frames)
    ]


def load_ahead(frames: Iterable[Frame], *, threads: int = 2, ahead: int = 8) -> Iterator[Sample]:
    """Yield the samples in order while threads decode the next ones, at most `ahead` of them."""
    waiting: deque[Future[Sample]] = deque()
    source = iter(frames)
    with ThreadPoolExecutor(threads) as pool:
        try:
            waiting.extend(pool.submit(f.load) for f in itertools.islice(source, ahead))
            while waiting:
                sample = waiting.popleft().result()
                waiting.extend(pool.submit(f.load) for f in itertools.islice(source, 1))
                yield sample
        finally:
            for future in waiting:
                future.cancel()
