"""
Run the real node for an hour with a camera at 10 Hz, good and bad images, and random faults.

At the end a table tells what became of every image and what the process held; the exit status
is 1 when a bound is broken. The seed decides the faults, so that a run can be repeated.
"""

from __future__ import annotations

import argparse
from collections import Counter
import csv
from pathlib import Path
from random import Random
import sys
import time

from llm_mde_ros.dds_domain import spinning_node, use_own_domain
from llm_mde_ros.node_process import NodeProcess
from llm_mde_ros.soak_accounts import Vitals, table, verdict
from llm_mde_ros.soak_faults import FAULTS
from llm_mde_ros.soak_robot import DIAGNOSTICS_PERIOD_S, NODE, SoakRobot

FAULT_PERIOD_S = 2.0  # the mean of a random time between two faults
START_S = 300.0


def soak(*, seconds: float, seed: int, model: str, out: Path) -> bool:
    """Run the node and write node.log, vitals.csv and table.md; return whether all bounds hold."""
    out.mkdir(parents=True, exist_ok=True)
    use_own_domain()
    parameters = {'model': model, 'diagnostics_period_s': DIAGNOSTICS_PERIOD_S}
    process = NodeProcess(parameters=parameters, remappings={}, log=out / 'node.log')
    with process, spinning_node('soak') as node:
        robot = SoakRobot(node, process, Random(seed))
        process.wait_until_active(node, name=NODE, timeout_s=START_S)
        try:
            faults = make_faults(robot, seconds)
        finally:
            write_vitals(robot.samples, out / 'vitals.csv')
    rows = verdict(robot.accounts, robot.samples)
    made = ', '.join(f'{name} {count}' for name, count in sorted(faults.items()))
    text = f'{seconds / 60:g} minutes, seed {seed}\n\n{table(rows)}\n\nFaults: {made}'
    text = '\n'.join([text, *robot.accounts.wrong[:10], *robot.accounts.failed[:10]])
    (out / 'table.md').write_text(f'{text}\n')
    print(text)
    return not any(row.broken for row in rows)


def make_faults(robot: SoakRobot, seconds: float) -> Counter[str]:
    """Send images and make faults at random times; return how many of each."""
    robot.start()
    faults: Counter[str] = Counter()
    next_fault_s, next_minute = 0.0, 1
    while robot.seconds < seconds:
        if robot.seconds >= 60 * next_minute:
            print(progress(robot, faults), flush=True)
            next_minute += 1
        if robot.seconds >= next_fault_s:
            fault = robot.random.choices(list(FAULTS), weights=list(FAULTS.values()))[0]
            faults[fault.__name__] += 1
            fault(robot)
            next_fault_s = robot.seconds + robot.random.expovariate(1 / FAULT_PERIOD_S)
        robot.tick()
    robot.settle()
    return faults


def progress(robot: SoakRobot, faults: Counter[str]) -> str:
    """Return a line about the run so far."""
    last, accounts = robot.samples[-1], robot.accounts
    return (
        f'{time.strftime("%H:%M:%S")} {last.second / 60:3.0f} min: {accounts.sent} images sent, '
        f'{len(accounts.answered)} answered, {sum(faults.values())} faults, '
        f'{last.memory_mib:.0f} MiB, {last.threads} threads, '
        f'{last.file_descriptors} file descriptors'
    )


def write_vitals(samples: list[Vitals], path: Path) -> None:
    """Write the samples as a table."""
    with path.open('w', newline='') as stream:
        writer = csv.writer(stream)
        writer.writerow(Vitals._fields)
        writer.writerows(samples)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--minutes', type=float, default=60.0)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--model', default='tiny', help='bundled name or folder')
    parser.add_argument('--out', type=Path, default=Path('out/soak'))
    options = parser.parse_args()
    is_good = soak(
        seconds=60 * options.minutes, seed=options.seed, model=options.model, out=options.out
    )
    sys.exit(0 if is_good else 1)


if __name__ == '__main__':
    main()
