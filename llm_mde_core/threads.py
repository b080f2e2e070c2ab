"""How many threads of torch an image is worth on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import time

import torch

RUNS = 3
NEARLY = 1.1  # times the time of the fastest number: another core has to be worth more than that


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Let torch use so many threads for an operation, in this thread and for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fewest_threads(run: Callable[[], object]) -> int:
    """
    Return the least number of threads with which `run` takes hardly longer than with any other.

    From one up to what torch uses now, doubling. The operations of a small network are too short
    to be shared, and a robot has other work for its cores.
    """
    most = torch.get_num_threads()
    counts = [*(2**power for power in range(most.bit_length()) if 2**power < most), most]
    seconds = {count: _seconds_with(count, run) for count in counts}
    enough_s = NEARLY * min(seconds.values())
    return next(count for count in counts if seconds[count] <= enough_s)


def _seconds_with(count: int, run: Callable[[], object]) -> float:
    """Return how long the fastest of a few runs takes: others wait for what else is done."""
    taken_s = []
    with using_threads(count):
        run()  # threads start, memory is taken
        for _ in range(RUNS):
            start_s = time.perf_counter()
            run()
            taken_s.append(time.perf_counter() - start_s)
    return min(taken_s)
