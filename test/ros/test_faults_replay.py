"""A replay whose disk is full, or that is ended at any moment, goes on to the same end."""

from __future__ import annotations

from collections.abc import Callable
import multiprocessing
import os
from pathlib import Path
import random
import resource
import signal
import sys
import time

import pytest
import small_bags
import torch

from llm_mde_ros import cli
from llm_mde_ros.bags import BagReader
from llm_mde_ros.replay import ReplayOptions
from llm_mde_ros.replay import replay as run_replay

FRAMES = 24


def full_disk(after_bytes: int = 0) -> None:
    """Let no file of this process grow beyond a size: what writes gets an OSError."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (after_bytes, resource.RLIM_INFINITY))


class Child:
    """A function in a process of its own, which has imported everything already."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._read, self._write = os.pipe()  # a disk that is full does not hinder it
        self.process = multiprocessing.get_context('fork').Process(
            target=self._run, args=(function,)
        )
        self.process.start()
        os.close(self._write)

    def end(self) -> tuple[int, str]:
        """Return the exit status and what was written to standard error."""
        with os.fdopen(self._read) as stream:
            text = stream.read()
        self.process.join(60)
        return self.process.exitcode, text

    def _run(self, function: Callable[[], object]) -> None:
        sys.stderr = os.fdopen(self._write, 'w', buffering=1)
        torch.set_num_threads(1)
        function()


def contents(path: Path) -> list[tuple]:
    with BagReader(path) as reader:
        return [(m.topic, m.time_ns, m.decode()) for m in reader.messages()]


@pytest.fixture
def options(tiny_model_dir: Path) -> ReplayOptions:
    return ReplayOptions(model=str(tiny_model_dir), device='cpu', part_bytes=200_000)


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return small_bags.write_rosbag2(tmp_path / 'bag', small_bags.camera(FRAMES))


def assert_whole(out: Path, expected: Path) -> None:
    assert sorted(path.name for path in out.parent.iterdir()) == ['out']  # nothing else is left
    assert [p.name for p in sorted(out.iterdir())] == [p.name for p in sorted(expected.iterdir())]
    assert contents(out) == contents(expected)


def test_a_disk_that_is_full_at_some_moment(tmp_path: Path, bag: Path, options: ReplayOptions):
    run_replay(bag, tmp_path / 'whole' / 'out', options)
    out = tmp_path / 'broken' / 'out'
    for moment in (1, 17, FRAMES - 1, FRAMES):

        def replay_until_full(moment: int = moment) -> None:
            def on_frame(done: int, _total: int) -> None:
                if done == moment:
                    full_disk()

            run_replay(bag, out, options, on_frame=on_frame)

        status, text = Child(replay_until_full).end()
        assert status == 1
        assert 'File too large' in text
        assert not out.exists()
    run_replay(bag, out, options)
    assert_whole(out, tmp_path / 'whole' / 'out')


def test_the_command_says_that_the_disk_is_full_and_that_it_goes_on(
    tmp_path: Path, bag: Path, tiny_model_dir: Path
):
    out = tmp_path / 'new' / 'out'

    def replay_on_full_disk() -> None:
        sys.argv = ['llm-mde', 'replay', str(bag), '--out', str(out)]
        sys.argv += ['--model', str(tiny_model_dir)]
        full_disk(after_bytes=10_000)
        cli.main()

    status, text = Child(replay_on_full_disk).end()
    assert status == 1
    assert 'File too large' in text
    assert 'The same command goes on where it stopped.' in text
    assert 'Traceback' not in text
    assert not out.exists()


def test_signals_at_any_moment(tmp_path: Path, bag: Path, options: ReplayOptions):
    started_s = time.monotonic()
    run_replay(bag, tmp_path / 'whole' / 'out', options)
    longest_s = time.monotonic() - started_s
    out = tmp_path / 'broken' / 'out'
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        child = Child(lambda: run_replay(bag, out, options))
        time.sleep(random.uniform(0.0, longest_s))
        os.kill(child.process.pid, number)
        status, _ = child.end()
        if out.exists():
            break
        assert status != 0
    if not out.exists():
        run_replay(bag, out, options)
    assert_whole(out, tmp_path / 'whole' / 'out')
