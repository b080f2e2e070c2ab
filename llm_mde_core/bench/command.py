"""What the benchmark's command does, for both command lines (with and without ROS)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import json
from pathlib import Path
from typing import Any

import torch

from llm_mde_core.bench.contenders import open_contender
from llm_mde_core.bench.memory import soak
from llm_mde_core.bench.options import BenchOptions, plan_cases, usual_case
from llm_mde_core.bench.report import comparison_text, node_text, report_text
from llm_mde_core.bench.run import profile_text, run_bench

Say = Callable[[str], None]


def bench(
    options: BenchOptions,
    *,
    out: Path | None,
    say: Say,
    measure_node: Callable[[], list[dict[str, Any]]] | None = None,
) -> None:
    """Measure and print; write the report as JSON. `measure_node` adds the part with ROS."""
    if out is not None and not out.parent.is_dir():
        raise ValueError(f'{out.parent} is no folder: the report cannot be written to {out}')
    # first: processes are started better before torch has threads
    node = measure_node() if measure_node is not None else []
    report = run_bench(options, say=say)
    if node:
        report['node'] = node
        report['ratios']['node_overhead_ms'] = node[0]['overhead_ms']['sum_of_p50']
        print(f'{node_text(node)}\n')
    print(report_text(report))
    if out is not None:
        out.write_text(json.dumps(report, indent=2) + '\n')
        say(f'{out} is written.')


def compare(before: Path, after: Path) -> None:
    """Print the ratios between two reports."""
    print(comparison_text(read_report(before), read_report(after)))


def read_report(path: Path) -> Mapping[str, Any]:
    """Read a report; ValueError for another file."""
    try:
        report = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f'{path} is no report of the benchmark: {error}') from error
    if not isinstance(report, dict) or not {'rows', 'ratios', 'commit'} <= report.keys():
        raise ValueError(f'{path} is no report of the benchmark: rows and ratios are missing')
    return report


def soak_frames(options: BenchOptions, *, frames: int) -> None:
    """Print the memory in use at ten points while the first model works on frames."""
    case = usual_case(options)
    run = open_contender(case).run
    print(case)
    soak(
        run,
        frames=frames,
        device=torch.device(case.device),
        on_point=lambda done, mib: print(f'{done} frames: {mib:.1f} MiB', flush=True),
    )


def profile(options: BenchOptions) -> None:
    """Print the operations that take the time of every case."""
    for case in plan_cases(options):
        print(profile_text(case))
