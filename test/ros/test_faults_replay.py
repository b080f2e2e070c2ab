"""A replay whose disk is full, or that is ended at any moment, goes on to the same end."""

from __future__ import annotations

from pathlib import Path
import random
import shutil
import signal
import sys
import time

from child_process import ChildProcess, full_disk, kill, on_call
import pytest
import small_bags

from llm_mde_ros import cli, resumable_bag
from llm_mde_ros.bags import BagReader
from llm_mde_ros.replay import ReplayOptions
from llm_mde_ros.replay import replay as run_replay
from llm_mde_ros.resumable_bag import ResumableBag

FRAMES = 24


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

        status, text = ChildProcess(replay_until_full).end()
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

    status, text = ChildProcess(replay_on_full_disk).end()
    assert status == 1
    assert 'File too large' in text
    assert 'The same command goes on where it stopped.' in text
    assert 'Traceback' not in text
    assert not out.exists()


def torn() -> None:
    full_disk(after_bytes=10)


STEPS = (  # before which call of what, one run after the other
    (resumable_bag, '_flush', 1, kill),  # the first part is not in place
    (ResumableBag, '_save', 1, torn),  # it is, and its record half written
    (resumable_bag, '_flush', 2, kill),  # written, and not in place
    (resumable_bag, '_flush', 3, kill),  # the first part is recorded, the second not in place
    (Path, 'rename', 1, kill),  # all of them, without their name
)


def test_a_replay_goes_on_from_every_step(tmp_path: Path, bag: Path, options: ReplayOptions):
    run_replay(bag, tmp_path / 'whole' / 'out', options)
    out = tmp_path / 'broken' / 'out'
    for step in STEPS:

        def replay_to_step(step: tuple = step) -> None:
            on_call(*step)
            run_replay(bag, out, options)

        assert ChildProcess(replay_to_step).end()[0] != 0
        assert not out.exists()
    run_replay(bag, out, options)
    assert_whole(out, tmp_path / 'whole' / 'out')


def test_after_a_kill_in_the_last_moment_the_same_name_can_be_used_again(
    tmp_path: Path, bag: Path, options: ReplayOptions
):
    """The bag has its name, and what is beside it goes with the next replay."""
    out = tmp_path / 'new' / 'out'

    def replay_to_the_end() -> None:
        on_call(ResumableBag, 'publish', 1, lambda: on_call(shutil, 'rmtree', 1, kill))
        run_replay(bag, out, options)

    assert ChildProcess(replay_to_the_end).end()[0] == -signal.SIGKILL
    out.rename(tmp_path / 'whole')
    run_replay(bag, out, options)
    assert_whole(out, tmp_path / 'whole')


@pytest.mark.parametrize('seed', [0], ids='seed {}'.format)
def test_signals_at_any_moment(tmp_path: Path, bag: Path, options: ReplayOptions, seed: int):
    dice = random.Random(seed)
    started_s = time.monotonic()
    run_replay(bag, tmp_path / 'whole' / 'out', options)
    longest_s = time.monotonic() - started_s
    out = tmp_path / 'broken' / 'out'
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        child = ChildProcess(lambda: run_replay(bag, out, options))
        time.sleep(dice.uniform(0.0, longest_s))
        child.send_signal(number)
        status, _ = child.end()
        if out.exists():
            if status != 0:  # maybe while it removed this, which it does last
                shutil.rmtree(tmp_path / 'broken' / 'out.unfinished', ignore_errors=True)
            break
        assert status != 0
    if not out.exists():
        run_replay(bag, out, options)
    assert_whole(out, tmp_path / 'whole' / 'out')
