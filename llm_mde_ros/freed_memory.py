"""Memory that was freed stays with the process: every frame needs the same megabytes again."""

from collections.abc import Callable
import ctypes
import gc
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h
KEPT_BYTES = 64 * 2**20
LARGEST_BYTES = 32 * 2**20  # of one piece; the most that glibc allows


def keep_freed_memory() -> None:
    """
    Let glibc keep what is freed instead of giving it back; nothing happens with other libraries.

    Giving back and taking again costs a page fault for every 4 kB, half of the time in which a
    cloud of 4.9 MB is made and published. All threads share one arena, or what one of them freed
    would wait for that one: memory would grow with new adapters and restarts for hours.
    """
    mallopt = _of_glibc('mallopt')
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_THRESHOLD, LARGEST_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def give_back_freed_memory() -> None:
    """
    Give back what is free now, as after a model: what the next one needs does not fit its gaps.

    Networks hold themselves in circles, which Python looks for too seldom by itself. Takes some
    milliseconds, and as many again in the next frames.
    """
    gc.collect()
    malloc_trim = _of_glibc('malloc_trim')
    if malloc_trim is not None:
        malloc_trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == 'linux' else None
