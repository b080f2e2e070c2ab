"""Memory: the peak of a case in a process of its own, and whether it stays flat."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
import gc
from multiprocessing import get_context
import os
from pathlib import Path
import resource

import torch

from llm_mde_core.bench.case import Case
from llm_mde_core.bench.contenders import open_contender

SOAK_POINTS = 10
MIB = 2**20


def peak_memory_mib(case: Case) -> float:
    """
    Return the peak of a fresh process that runs the case three times.

    On CUDA of the memory that torch has taken from the device, elsewhere of the process.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context('spawn')) as pool:
        return pool.submit(_peak_here, case).result() / MIB


def _peak_here(case: Case) -> float:
    contender = open_contender(case)
    for _ in range(3):
        contender.run()
    if torch.device(case.device).type == 'cuda':
        return float(torch.cuda.max_memory_allocated(case.device))
    return _peak_resident()


def _peak_resident() -> float:
    """Return the most memory that this process has had, in bytes."""
    status = Path('/proc/self/status')
    if status.exists():  # getrusage would count the parent's memory in
        (line,) = (text for text in status.read_text().splitlines() if text.startswith('VmHWM'))
        return 1024.0 * int(line.split()[1])
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # macOS: bytes


def soak(
    run: Callable[[], object],
    *,
    frames: int,
    device: torch.device,
    on_point: Callable[[int, float], None] = lambda frames, mib: None,
) -> list[tuple[int, float]]:
    """
    Run many frames; return at ten points how many were done and the memory in use, in MiB.

    Raises ValueError for fewer frames than points.
    """
    if frames < SOAK_POINTS:
        raise ValueError(f'a soak needs at least {SOAK_POINTS} frames, not {frames}')
    points: list[tuple[int, float]] = []
    for point in range(1, SOAK_POINTS + 1):
        done = points[-1][0] if points else 0
        for _ in range(frames * point // SOAK_POINTS - done):
            run()
        points.append((frames * point // SOAK_POINTS, memory_mib(device)))
        on_point(*points[-1])
    return points


def memory_mib(device: torch.device) -> float:
    """Return the memory in use: torch's on CUDA, else the resident memory of this process."""
    gc.collect()
    if device.type == 'cuda':
        return torch.cuda.memory_allocated(device) / MIB
    statm = Path('/proc/self/statm')
    if not statm.exists():
        raise ValueError('the memory in use can be read on Linux or CUDA only')
    return int(statm.read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / MIB
