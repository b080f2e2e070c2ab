"""Measure several contenders in turns, so that whatever else the machine does hits all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
import time
from typing import TypeVar

import numpy as np
import torch

TURN_S = 0.5  # a turn lasts for this long at least,
TURN_RUNS = 2  # and has this many runs that count
MIN_ROUNDS = 3
PERCENTILES = (50, 95, 99)
Name = TypeVar('Name')
Stages = dict[str, float]  # seconds by stage of one run; 'total' is from end to end


@dataclass
class Timing:
    """All runs of one contender."""

    samples_s: dict[str, list[float]] = field(default_factory=dict)
    energy_j: float | None = None  # of all runs; None where nothing measures it

    def add(self, stages: Stages) -> None:
        """Keep the seconds of one run."""
        for stage, seconds in stages.items():
            self.samples_s.setdefault(stage, []).append(seconds)

    @property
    def runs(self) -> int:
        """Return how often it ran."""
        return len(self.samples_s.get('total', []))

    @property
    def p50_s(self) -> float:
        """Return the median from end to end."""
        return float(np.median(self.samples_s['total']))

    def percentiles_ms(self) -> dict[str, dict[str, float]]:
        """Return p50, p95 and p99 in milliseconds by stage."""
        return {stage: percentiles_ms(samples) for stage, samples in self.samples_s.items()}


def percentiles_ms(samples_s: list[float]) -> dict[str, float]:
    """Return p50, p95 and p99 of seconds, in milliseconds."""
    values = 1e3 * np.percentile(samples_s, PERCENTILES)
    return {f'p{n}': round(float(ms), 3) for n, ms in zip(PERCENTILES, values, strict=True)}


def measure(
    contenders: Mapping[Name, Callable[[], Stages]],
    *,
    seconds: float,
    energy_j: Callable[[], float | None] = lambda: None,
) -> dict[Name, Timing]:
    """
    Let contenders run in turns for `seconds` each, at least three turns.

    The first run of a turn does not count: it finds another one's data in the caches. `energy_j`
    reads the joules that the device has used so far.
    """
    timings = {name: Timing() for name in contenders}
    for run in contenders.values():
        run()  # compilation
    start, total_s = time.perf_counter(), seconds * len(contenders)
    rounds = 0
    while rounds < MIN_ROUNDS or time.perf_counter() - start < total_s:
        for name, run in contenders.items():
            _take_turn(run, timings[name], energy_j)
        rounds += 1
    return timings


def _take_turn(
    run: Callable[[], Stages], timing: Timing, energy_j: Callable[[], float | None]
) -> None:
    run()
    start, before_j = time.perf_counter(), energy_j()
    runs = 0
    while runs < TURN_RUNS or time.perf_counter() - start < TURN_S:
        timing.add(run())
        runs += 1
    after_j = energy_j()
    if before_j is not None and after_j is not None:
        timing.energy_j = (timing.energy_j or 0.0) + after_j - before_j


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Return how long a call takes until the device has finished it."""
    wait_for(device)
    start = time.perf_counter()
    run()
    wait_for(device)
    return time.perf_counter() - start


def wait_for(device: torch.device) -> None:
    """Let the device finish what it was given."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    elif device.type == 'mps':
        torch.mps.synchronize()
