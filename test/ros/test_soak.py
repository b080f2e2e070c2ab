"""The soak: its bookkeeping, and two minutes of the real thing."""

from __future__ import annotations

from collections import Counter
import math
import os
from pathlib import Path
from random import Random
import subprocess
import sys

import numpy as np
import pytest
from sensor_msgs.msg import Image

import soak.__main__
from soak.accounts import Accounts, Row, Vitals, counts_of, table, verdict

REPOSITORY = Path(__file__).resolve().parents[2]


def steady(seconds: int = 100) -> list[Vitals]:
    return [Vitals(float(second), 500.0, 20, 30) for second in range(seconds + 1)]


def fair() -> Accounts:
    """Return accounts of four good images, of which one was skipped, and a bad one."""
    fates = Counter({'received': 5, 'published': 3, 'skipped': 1, 'dropped': 1})
    fates['dropped: image'] = 1
    accounts = Accounts(good={1, 2, 3, 4}, bad={5}, answered={1, 2, 3})
    accounts.settle(fates)
    return accounts


def broken(accounts: Accounts, samples: list[Vitals]) -> list[str]:
    return [row.name for row in verdict(accounts, samples, samples[::10]) if row.broken]


def test_a_fair_run_breaks_no_bound() -> None:
    assert broken(fair(), steady()) == []


@pytest.mark.parametrize(
    ('change', 'name'),
    [
        ({'published': -1, 'received': -1}, 'lost on the way to the node'),
        ({'skipped': -1}, 'received without a fate'),
        ({'published': 1, 'skipped': -1}, 'published depth that did not arrive'),
    ],
)
def test_an_image_that_went_missing_is_told(change: dict[str, int], name: str) -> None:
    accounts = fair()
    accounts.fates.update(change)
    assert name in broken(accounts, steady())


@pytest.mark.parametrize('reason', ['inference', 'image', 'camera_info'])
def test_a_good_image_that_is_dropped_is_told(reason: str) -> None:
    accounts = fair()
    accounts.bad.add(6)  # that this one is skipped hides nothing
    accounts.settle(accounts.fates + Counter({'received': 1, 'skipped': 1}))
    accounts.good.add(7)
    accounts.settle(
        accounts.fates + Counter({'received': 1, 'dropped': 1, f'dropped: {reason}': 1})
    )
    assert broken(accounts, steady()) == ['good images dropped']


@pytest.mark.parametrize(('stamp_ns', 'kind'), [(5, 'a bad image'), (6, 'no image')])
def test_an_output_that_should_not_be_is_told(stamp_ns: int, kind: str) -> None:
    accounts = fair()
    accounts.take_output('points', stamp_ns)
    assert accounts.wrong == [f'points answers {kind} ({stamp_ns})']
    assert broken(accounts, steady()) == ['outputs from bad input']


def depth_of(value: float, width: int = 64, encoding: str = '32FC1') -> Image:
    values = np.full((48, width), value, np.float32 if encoding == '32FC1' else np.uint16)
    image = Image(width=width, height=48, encoding=encoding, step=values.strides[0])
    image.data = values.tobytes()
    return image


@pytest.mark.parametrize(
    ('depth', 'fault'),
    [
        (depth_of(2.0), ''),
        (depth_of(math.nan), ''),
        (depth_of(0, encoding='16UC1'), ''),
        (depth_of(2000, encoding='16UC1'), ''),
        (depth_of(2.0, width=32), '32 x 48 pixels, not (64, 48)'),
        (depth_of(2, encoding='rgb8'), "encoding 'rgb8'"),
        (depth_of(math.inf), 'inf'),
        (depth_of(-1.0), '-1.0'),
        (depth_of(2000.0), '2000.0'),
        (depth_of(30_000, encoding='16UC1'), '30.0'),
    ],
)
def test_a_depth_that_cannot_be_that_of_its_image_is_told(depth: Image, fault: str) -> None:
    accounts = fair()
    accounts.sizes[4] = 64, 48
    accounts.take_depth(depth, 4)
    assert 4 in accounts.answered
    assert [fault in told for told in accounts.wrong] == [True] * bool(fault)


def test_a_request_that_was_not_met_is_told() -> None:
    accounts = fair()
    accounts.failed.append('not so: activate succeeded')
    assert broken(accounts, steady()) == ['requests with a wrong answer']


@pytest.mark.parametrize(
    ('late', 'names'),
    [
        (Vitals(0, 509.0, 20, 30), []),
        (Vitals(0, 511.0, 20, 30), ['memory at rest']),
        (Vitals(0, 400.0, 21, 30), ['threads']),
        (Vitals(0, 500.0, 20, 31), ['file descriptors']),
    ],
)
def test_growth_is_told(late: Vitals, names: list[str]) -> None:
    samples = [s if s.second < 70 else late._replace(second=s.second) for s in steady()]
    assert broken(fair(), samples) == names


@pytest.mark.parametrize(
    ('grown_mib', 'names'), [(0.0, []), (40.0, []), (60.0, ['memory without restarts'])]
)
def test_memory_that_a_restart_gives_back_may_come_and_go_but_not_grow(
    grown_mib: float, names: list[str]
) -> None:
    samples = steady()
    busy = [
        s._replace(memory_mib=500.0 + 30 * (s.second % 2) + grown_mib * (s.second > 65))
        for s in samples
    ]
    assert [row.name for row in verdict(fair(), busy, samples[::10]) if row.broken] == names


def test_a_run_without_rests_tells_nothing_of_memory() -> None:
    rows = {row.name: row for row in verdict(fair(), steady(), [])}
    assert rows['memory at rest'].figure == 'too short a run to tell, at most 500.0 MiB'


def test_what_a_process_holds_is_read_from_the_system() -> None:
    before = Vitals.of(os.getpid(), second=1.0)
    with Path(__file__).open():
        after = Vitals.of(os.getpid(), second=2.0)
    assert after.file_descriptors == before.file_descriptors + 1
    assert after.threads >= 1
    assert after.memory_mib > 50


def test_counts_are_read_from_the_diagnostics() -> None:
    report = {'received': '7', 'dropped': '2', 'dropped: image': '2', 'rate [Hz]': '9.9'}
    counts = counts_of(report)
    assert +counts == {'received': 7, 'dropped': 2, 'dropped: image': 2}


def test_the_table_says_what_is_broken() -> None:
    text = table([Row('threads', '3 -> 4', 'must not grow'), Row('received', '5')])
    assert '| threads | 3 -> 4 | BROKEN: must not grow |' in text
    assert '| received | 5 |  |' in text


class Clock:
    """A robot for which only time goes on."""

    def __init__(self) -> None:
        self.seconds, self.random, self.rests = 0.0, Random(1), []

    def start(self) -> None:
        pass

    settle = start

    def tick(self) -> None:
        self.seconds += 0.5


def test_a_third_of_a_run_has_no_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    def restart(_robot: Clock) -> None:
        pass

    def pause(_robot: Clock) -> None:
        pass

    rests_s: list[float] = []
    monkeypatch.setattr(soak.__main__, 'rest', lambda robot: rests_s.append(robot.seconds))
    monkeypatch.setattr(soak.__main__, 'restart', restart)
    monkeypatch.setattr(soak.__main__, 'FAULTS', {restart: 1, pause: 1})
    monkeypatch.setattr(soak.__main__, 'start_threads', lambda _robot: None)
    monkeypatch.setattr(soak.__main__, 'progress', lambda *_: '')
    made: list[tuple[float, str]] = []
    soak.__main__.make_faults(Clock(), 3600.0, made)
    restarts_s = [second for second, name in made if name == 'restart']
    pauses_s = [second for second, name in made if name == 'pause']
    within = [[1620 <= s < 2880 for s in times] for times in (rests_s, restarts_s, pauses_s)]
    assert [any(each) for each in within] == [False, False, True]
    assert np.diff(rests_s).min() > 100
    assert (len(rests_s) > 15, len(restarts_s) > 100) == (True, True)


def test_two_minutes_of_the_real_node(tiny_model_dir: Path, tmp_path: Path) -> None:
    # a process of its own, because it sets the environment of ROS
    paths = os.pathsep.join(
        filter(None, [str(REPOSITORY / 'test'), str(REPOSITORY), os.environ.get('PYTHONPATH', '')])
    )
    command = [sys.executable, '-m', 'soak', '--minutes', '2', '--seed', '2']
    done = subprocess.run(
        [*command, '--model', str(tiny_model_dir), '--out', str(tmp_path)],
        env=os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': paths},
        capture_output=True,
        text=True,
        timeout=480,
    )
    rows = dict(
        line.strip('| ').split(' | ', 1) for line in done.stdout.splitlines() if '|' in line
    )
    assert rows, done.stderr
    for name in ('good images sent', 'bad images sent', 'published'):
        assert int(rows[name].split()[0]) > 0, done.stdout
    # memory needs longer than this to settle
    slow = {'memory at rest', 'memory without restarts'}
    bad = {name for name, figure in rows.items() if 'BROKEN' in figure} - slow
    assert not bad, done.stdout
    assert done.returncode == int('BROKEN' in done.stdout)
    assert (tmp_path / 'vitals.csv').read_text().startswith('second,memory_mib')
    assert len((tmp_path / 'rests.csv').read_text().splitlines()) >= 2
