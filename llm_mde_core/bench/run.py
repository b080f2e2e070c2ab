"""Run the benchmark: plan, open, count, measure in turns, and put the report together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timezone
from typing import Any

import torch

from llm_mde_core.bench.case import Case, Contender
from llm_mde_core.bench.clock import Stages, Timing, measure
from llm_mde_core.bench.contenders import open_contender
from llm_mde_core.bench.machine import (
    describe_machine,
    describe_versions,
    energy_meter,
    git_commit,
)
from llm_mde_core.bench.memory import peak_memory_mib
from llm_mde_core.bench.options import BenchOptions, plan_cases
from llm_mde_core.bench.report import ratios
from llm_mde_core.bench.roofline import Rates, Work, Yardstick, count_work
from llm_mde_core.device import choose_device


def run_bench(
    options: BenchOptions, *, say: Callable[[str], None] = lambda sentence: None
) -> dict[str, Any]:
    """Measure; return the report, which can be written as JSON. Raises ValueError, OSError."""
    device = choose_device(options.device)
    cases = plan_cases(options)
    contenders = {}
    for case in cases:
        say(f'Loading {case}')
        contenders[case] = open_contender(case)
    work = {case: _work(case) for case in cases}
    say(f'Measuring {len(cases)} cases in turns, {options.seconds * len(cases):.0f} s or more')
    timings, rates = _measure(contenders, device, options)
    rows = []
    for case in cases:
        limit_s = work[case].limit_s(rates[case.precision])
        row = _row(case, contenders[case], timings[case], work[case], limit_s)
        if options.memory:
            say(f'Measuring the memory of {case}')
            row['peak_mib'] = round(peak_memory_mib(case))
        rows.append(row)
    return {
        'time': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'machine': describe_machine(device),
        'versions': describe_versions(device),
        'commit': git_commit(),
        'rates': {name: _rates_row(rate) for name, rate in sorted(rates.items())},
        'rows': rows,
        'ratios': ratios(rows),
    }


def _measure(
    contenders: Mapping[Case, Contender], device: torch.device, options: BenchOptions
) -> tuple[dict[Case, Timing], dict[str, Rates]]:
    """Measure the cases, and with them the machine's rates at their precisions."""
    precisions = {case.precision for case in contenders}
    yardsticks = {precision: Yardstick(device, precision) for precision in precisions}
    runs: dict[Case | tuple[str, str], Callable[[], Stages]] = {}
    runs |= {case: contender.run for case, contender in contenders.items()}
    runs |= {('multiply', name): yardstick.multiply for name, yardstick in yardsticks.items()}
    runs |= {('copy', name): yardstick.copy for name, yardstick in yardsticks.items()}
    timings = measure(runs, seconds=options.seconds, energy_j=energy_meter(device))
    rates = {
        name: yardstick.rates(
            product_s=timings['multiply', name].p50_s, copy_s=timings['copy', name].p50_s
        )
        for name, yardstick in yardsticks.items()
    }
    return {case: timings[case] for case in contenders}, rates


def profile_text(case: Case, *, operations: int = 20) -> str:
    """Return the operations of one run that take most of the time."""
    on_cuda = torch.device(case.device).type == 'cuda'
    contender = open_contender(case)
    contender.run()
    contender.run()
    activities = [torch.profiler.ProfilerActivity.CPU]
    if on_cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        contender.run()
    order = 'self_device_time_total' if on_cuda else 'self_cpu_time_total'
    return f'{case}\n{profile.key_averages().table(sort_by=order, row_limit=operations)}'


def _work(case: Case) -> Work:
    return count_work(open_contender(replace(case, precision='fp32', compile='off')).run)


def _row(
    case: Case, contender: Contender, timing: Timing, work: Work, limit_s: float
) -> dict[str, Any]:
    """Return the figures of a case, None where there is none."""
    ms = timing.percentiles_ms()
    p50_s = timing.p50_s
    images = timing.runs * case.batch
    return {
        **asdict(case),
        'input': list(contender.input_size),
        'runs': timing.runs,
        'ms': ms,
        'images_per_s': round(case.batch / p50_s, 2),
        'ns_per_pixel': round(1e9 * p50_s / (case.batch * case.width * case.height), 2),
        'gflop': work.flop / 1e9,
        'limit_ms': round(1e3 * limit_s, 4),
        'percent_of_limit': round(100 * limit_s / p50_s, 1),
        'peak_mib': None,
        'joule_per_image': None if timing.energy_j is None else timing.energy_j / images,
    }


def _rates_row(rates: Rates) -> dict[str, float]:
    return {
        'gflop_per_s': round(rates.flop_per_s / 1e9, 1),
        'gbyte_per_s': round(rates.bytes_per_s / 1e9, 1),
    }
