"""
Run the real node for an hour with a camera at 10 Hz, good and bad images, and random faults.

At the end a table tells what became of every image and what the process held; the exit status
is 1 when a bound is broken. The seed decides which faults come in which order.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
import csv
from pathlib import Path
from random import Random
import shutil
import sys
import time

from llm_mde_core.estimator import DepthEstimator
from llm_mde_core.lora import add_lora
from llm_mde_ros.dds_domain import spinning_node, use_own_domain
from llm_mde_ros.node_process import NodeProcess
from soak.accounts import ONE_LIFE, Vitals, table, verdict
from soak.faults import FAULTS, rest, restart, start_threads
from soak.robot import DIAGNOSTICS_PERIOD_S, NODE, SoakRobot

FAULT_PERIOD_S = 2.0  # the mean of a random time between two faults
START_S = 300.0
RESTS, LEAST_REST_S = 30, 50.0  # how many in a run, and how far they are apart at least


def soak(*, seconds: float, seed: int, model: str, out: Path) -> bool:
    """
    Run the node and return whether all bounds hold.

    Writes node.log, vitals.csv, rests.csv, faults.csv and table.md.
    """
    out.mkdir(parents=True, exist_ok=True)
    adapters = make_adapters(model, out / 'adapters')
    use_own_domain()
    parameters = {
        'model': model,
        'diagnostics_period_s': DIAGNOSTICS_PERIOD_S,
        'save_folder': str(out.absolute() / 'saved'),
    }
    process = NodeProcess(parameters=parameters, remappings={}, log=out / 'node.log')
    with process, spinning_node('soak') as node:
        robot = SoakRobot(node, process, random=Random(seed), adapters=adapters)
        process.wait_until_active(node, name=NODE, timeout_s=START_S)
        made: list[tuple[float, str]] = []
        try:
            make_faults(robot, seconds, made)
        finally:
            write_table(out / 'vitals.csv', Vitals._fields, robot.samples)
            write_table(out / 'rests.csv', Vitals._fields, robot.rests)
            write_table(out / 'faults.csv', ('second', 'fault'), made)
    rows = verdict(robot.accounts, robot.samples, robot.rests)
    counts = sorted(Counter(name for _, name in made).items())
    faults = ', '.join(f'{name} {count}' for name, count in counts)
    text = f'{seconds / 60:g} minutes, seed {seed}\n\n{table(rows)}\n\nFaults: {faults}'
    text = '\n'.join([text, *robot.accounts.wrong[:10], *robot.accounts.failed[:10]])
    (out / 'table.md').write_text(f'{text}\n')
    print(text)
    return not any(row.broken for row in rows)


def make_faults(robot: SoakRobot, seconds: float, made: list[tuple[float, str]]) -> None:
    """Send images and make faults at random times; `made` tells when (s) which."""
    robot.start()
    start_threads(robot)
    next_fault_s, next_minute = 0.0, 1
    next_rest_s = rest_s = max(seconds / RESTS, LEAST_REST_S)
    while robot.seconds < seconds:
        if robot.seconds >= 60 * next_minute:
            print(progress(robot, len(made)), flush=True)
            next_minute += 1
        is_one_life = ONE_LIFE[0] <= robot.seconds / seconds < ONE_LIFE[1]
        if robot.seconds >= next_rest_s and not is_one_life:
            rest(robot)
            next_rest_s = robot.seconds + rest_s
        if robot.seconds >= next_fault_s:
            drawn = {f: w for f, w in FAULTS.items() if f is not restart or not is_one_life}
            fault = robot.random.choices(list(drawn), weights=list(drawn.values()))[0]
            made.append((robot.seconds, fault.__name__))
            fault(robot)
            next_fault_s = robot.seconds + robot.random.expovariate(1 / FAULT_PERIOD_S)
        robot.tick()
    robot.settle()


def progress(robot: SoakRobot, faults: int) -> str:
    """Return a line about the run so far."""
    last, accounts = robot.samples[-1], robot.accounts
    return (
        f'{time.strftime("%H:%M:%S")} {last.second / 60:3.0f} min: {accounts.sent} images sent, '
        f'{len(accounts.answered)} answered, {faults} faults, '
        f'{last.memory_mib:.0f} MiB, {last.threads} threads, '
        f'{last.file_descriptors} file descriptors'
    )


def make_adapters(model: str, folder: Path) -> tuple[str, ...]:
    """Return the folders of none, two good ones and one whose weights are cut off."""
    good, other, damaged = (folder / name for name in ('good', 'other', 'damaged'))
    add_lora(DepthEstimator.from_pretrained(model, device='cpu').model).save_pretrained(good)
    for copy in (other, damaged):
        shutil.copytree(good, copy, dirs_exist_ok=True)
    weights = damaged / 'adapter_model.safetensors'
    weights.write_bytes(weights.read_bytes()[:-1000])
    return '', *(str(made.absolute()) for made in (good, other, damaged))


def write_table(path: Path, names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a file of comma-separated values."""
    with path.open('w', newline='') as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        writer.writerows(rows)


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
