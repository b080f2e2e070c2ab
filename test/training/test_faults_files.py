"""A training whose disk is full, or that is ended at any moment, goes on to the same end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
import os
from pathlib import Path
import random
import signal
import time

from child_process import ChildProcess, full_disk, kill, on_call, sessions
import pytest
import torch
import typer

from llm_mde_core import DepthEstimator, LLMMDEForDepthEstimation
from llm_mde_train import adapt_report, adapted_parts, run_folder
from llm_mde_train import fit as fit_module
from llm_mde_train.adapt import adapt
from llm_mde_train.adapted_parts import WEIGHTS, make_adaptable, save_adapter
from llm_mde_train.commands.errors import sentences_for_errors
from llm_mde_train.fit import fit
from llm_mde_train.recipe import Recipe
from llm_mde_train.trainer import Trainer
from llm_mde_train.whole_files import write_whole

from .conftest import small_rooms
from .test_adapt import QUICK, recording
from .test_run_folder import assert_same_end, recipe  # noqa: F401 - a fixture

FULL = (  # before which call of what the disk is full, one run after the other: 6 steps, 3 saves
    (run_folder.RunFolder, 'claim', 1),
    (Trainer, 'save', 1),
    (run_folder, 'save_file', 1),
    (run_folder, 'save_file', 2),
    (Trainer, 'step', 3),
    (fit_module, 'write_whole', 1),
)
VERDICT = '{"worthwhile": true}'


def fit_on_full_disk(recipe: Recipe, out: Path, moment: tuple) -> None:  # noqa: F811
    on_call(*moment, full_disk)
    try:
        with sentences_for_errors():
            fit(recipe, out)
    except typer.Exit as ended:
        raise SystemExit(ended.exit_code) from ended


def test_a_disk_that_is_full(recipe: Recipe, tmp_path: Path):  # noqa: F811
    fit(recipe, tmp_path / 'whole')
    out = tmp_path / 'full'
    for moment in FULL:
        status, text = ChildProcess(fit_on_full_disk, recipe, out, moment).end()
        assert status == 1, text
        assert 'Error: ' in text
        assert 'File too large' in text
        assert 'Traceback' not in text
        assert not (out / 'best.json').exists()
        if (out / 'model').exists():
            LLMMDEForDepthEstimation.from_pretrained(out / 'model')
    torch.manual_seed(99)
    fit(recipe, out)
    assert_same_end(tmp_path / 'whole', out)
    assert not [path for path in out.rglob('*') if path.suffix in ('.new', '.old')]


@pytest.mark.parametrize('seed', [0], ids='seed {}'.format)
def test_signals_at_any_moment(recipe: Recipe, tmp_path: Path, seed: int):  # noqa: F811
    dice = random.Random(seed)
    started_s = time.monotonic()
    fit(recipe, tmp_path / 'whole')
    longest_s = time.monotonic() - started_s
    out = tmp_path / 'killed'
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        child = ChildProcess(fit, recipe, out)
        time.sleep(dice.uniform(0.0, longest_s))
        child.send_signal(number)
        child.end()
    fit(recipe, out)
    assert_same_end(tmp_path / 'whole', out)


def fit_in_own_session(recipe: Recipe, out: Path) -> None:  # noqa: F811
    os.setsid()
    fit(recipe, out)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_workers_of_a_fit_end_with_it(recipe: Recipe, tmp_path: Path, number: int):  # noqa: F811
    child = ChildProcess(fit_in_own_session, replace(recipe, workers=2, steps=1000), tmp_path)
    log = tmp_path / 'log.jsonl'
    wait_until(lambda: log.exists() and log.stat().st_size)
    assert sessions().count(child.pid) == 3
    for _ in range(6):  # Python loses a SIGINT that comes while it forks workers
        child.send_signal(number)
        if child.join(10.0):
            break
    wait_until(lambda: child.pid not in sessions())


def wait_until(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.05)


@pytest.fixture
def adapter(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """Return a folder with an adapter and what was said about it."""
    network = make_adaptable(
        LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir), train='lora_head'
    )
    save_adapter(network, tmp_path / 'adapter', model='')
    (tmp_path / 'adapter' / 'metrics.json').write_text(VERDICT)
    return tmp_path / 'adapter'


def save_another(tiny_model_dir: Path, out: Path, moment: tuple, happen: Callable[[], None]):
    model = LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir)
    network = make_adaptable(model, train='lora')  # other names and shapes
    on_call(*moment, happen)
    save_adapter(network, out, model='')


def test_on_a_full_disk_the_old_adapter_stays(adapter: Path, tiny_model_dir: Path):
    before = {path.name: path.read_bytes() for path in adapter.iterdir()}
    moment = (adapted_parts, 'get_peft_model_state_dict', 1)
    child = ChildProcess(save_another, tiny_model_dir, adapter, moment, full_disk)
    status, text = child.end()
    assert status == 1
    assert 'File too large' in text
    assert {path.name: path.read_bytes() for path in adapter.iterdir()} == before


def test_an_adapter_is_never_half_old_and_half_new(adapter: Path, tiny_model_dir: Path):
    def load() -> None:
        DepthEstimator.from_pretrained(tiny_model_dir, adapter=adapter, device='cpu')

    def kill_before(*moment: object) -> None:
        child = ChildProcess(save_another, tiny_model_dir, adapter, moment, kill)
        assert child.end()[0] == -signal.SIGKILL

    old = (adapter / WEIGHTS).read_bytes()
    kill_before(Path, 'unlink', 1)
    assert (adapter / WEIGHTS).read_bytes() == old
    load()
    for call in (1, 2):
        kill_before(Path, 'replace', call)
        with pytest.raises(FileNotFoundError, match='no adapter in'):
            load()
    ChildProcess(save_another, tiny_model_dir, adapter, (Path, 'replace', 0), kill).end()
    load()
    assert sorted(path.name for path in adapter.iterdir()) == [
        'adapter_config.json',
        'adapter_model.safetensors',
    ]


def adapt_to_lab(tiny_model_dir: Path, out: Path) -> None:
    """Do what the command does."""
    result = adapt(
        recording(12),
        out=out,
        model=str(tiny_model_dir),
        shots=4,
        replay=small_rooms(2, 3),
        tuning=QUICK,
        device='cpu',
    )
    adapt_report.write(result, out)


def test_on_a_full_disk_no_half_of_a_report_is_left(tiny_model_dir: Path, tmp_path: Path):
    def adapt_until_full() -> None:
        on_call(adapt_report, 'figures', 1, lambda: full_disk(after_bytes=100))
        adapt_to_lab(tiny_model_dir, tmp_path / 'new')

    status, text = ChildProcess(adapt_until_full).end()
    assert (status, 'File too large' in text) == (1, True)
    names = sorted(path.name for path in (tmp_path / 'new').iterdir())
    assert names == ['adapter_config.json', WEIGHTS]


@pytest.mark.parametrize('seed', [0], ids='seed {}'.format)
def test_adapting_is_ended_at_any_moment(
    adapter: Path, tiny_model_dir: Path, tmp_path: Path, seed: int
):
    dice = random.Random(seed)
    started_s = time.monotonic()
    adapt_to_lab(tiny_model_dir, tmp_path / 'whole')
    longest_s = time.monotonic() - started_s
    old, new = ((folder / WEIGHTS).read_bytes() for folder in (adapter, tmp_path / 'whole'))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        child = ChildProcess(adapt_to_lab, tiny_model_dir, adapter)
        time.sleep(dice.uniform(0.0, longest_s))
        child.send_signal(number)
        child.end()
        if (adapter / WEIGHTS).exists():  # else it was on its way
            DepthEstimator.from_pretrained(tiny_model_dir, adapter=adapter, device='cpu')
            weights, said = (adapter / WEIGHTS).read_bytes(), adapter / 'metrics.json'
            assert weights in (old, new)
            assert (said.exists() and said.read_text() == VERDICT) == (weights == old)
    adapt_to_lab(tiny_model_dir, adapter)
    assert (adapter / WEIGHTS).read_bytes() == new
    names = [{path.name for path in folder.iterdir()} for folder in (adapter, tmp_path / 'whole')]
    assert names[0] == names[1]


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path: Path):
    path = tmp_path / 'figures.json'
    write_whole(path, 'old')

    def write() -> None:
        full_disk(after_bytes=10)
        write_whole(path, 100 * 'new')

    status, text = ChildProcess(write).end()
    assert (status, 'File too large' in text) == (1, True)
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]
