"""How much memory this process holds."""

import os
from pathlib import Path

import torch

STATM = Path('/proc/self/statm')  # of Linux; elsewhere the figure is left out


def memory_mb() -> dict[str, int]:
    """Return the resident memory and, where the process uses GPUs, theirs: whole megabytes."""
    found = {}
    if STATM.exists():
        pages = int(STATM.read_text().split()[1])
        found['memory [MB]'] = pages * os.sysconf('SC_PAGE_SIZE') // 10**6
    if torch.cuda.is_initialized():
        devices = range(torch.cuda.device_count())
        found['GPU memory [MB]'] = sum(map(torch.cuda.memory_reserved, devices)) // 10**6
    return found
