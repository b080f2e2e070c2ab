"""Defect 15: a run killed at any moment goes on to the end it would have had."""

from __future__ import annotations

from dataclasses import replace
import gc
import json
import multiprocessing
import os
from pathlib import Path
import signal

import cv2
import pytest
from safetensors.torch import load_file
import torch

from llm_mde_train import run_folder
from llm_mde_train.fit import fit
from llm_mde_train.recipe import Recipe
from llm_mde_train.trainer import Trainer

MOMENTS = {  # what is called, and which of its calls is the last thing done: 6 steps, 3 saves
    'before the first save': (Trainer, 'step', 1),
    'between saves': (Trainer, 'step', 5),
    'model new, state old': (Trainer, 'save', 1),
    'state not in place': (run_folder, 'save_file', 2),
    'state new, model old': (Path, 'replace', 3),  # recipe.json, made_by.json, the state
    'model on its way': (Path, 'rename', 2),  # the first model in, the first model out
}


@pytest.fixture
def recipe(cheap) -> Recipe:
    return replace(cheap, steps=6, validate_every=2, reuse=1, warmup_steps=2)


def fit_until_killed(recipe: Recipe, out: Path, owner: object, name: str, call: int) -> None:
    """Run `fit` in a process that kills itself after the given call of a function."""
    gc.freeze()  # what other tests left of DDS cannot be collected without its threads
    cv2.setNumThreads(0)
    function, calls = getattr(owner, name), []

    def last(*arguments, **options):
        result = function(*arguments, **options)
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, last)
    fit(recipe, out)


def kill(recipe: Recipe, out: Path, moment: str) -> None:
    arguments = (recipe, out, *MOMENTS[moment])
    process = multiprocessing.get_context('fork').Process(target=fit_until_killed, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def story(out: Path) -> list[dict]:
    rows = [json.loads(line) for line in (out / 'log.jsonl').open()]
    return [{name: value for name, value in row.items() if name != 's'} for row in rows]


def assert_same_end(one: Path, two: Path) -> None:
    for name in ('model/model.safetensors', 'last/state.safetensors'):
        first, second = load_file(one / name), load_file(two / name)
        assert set(first) == set(second)
        assert all(first[key].equal(second[key]) for key in first), name
    assert (one / 'best.json').read_text() == (two / 'best.json').read_text()
    assert story(one) == story(two)


@pytest.mark.parametrize('moment', MOMENTS)
def test_killed_and_resumed_ends_the_same(moment, recipe, tmp_path):
    expected = fit(recipe, tmp_path / 'whole')
    kill(recipe, tmp_path / 'killed', moment)
    assert not (tmp_path / 'killed' / 'best.json').exists()
    torch.manual_seed(99)
    assert fit(recipe, tmp_path / 'killed') == expected
    assert_same_end(tmp_path / 'whole', tmp_path / 'killed')


@pytest.mark.parametrize('changes', [{'train': 'lora'}, {'workers': 2}], ids=str)
def test_so_does_lora_and_so_do_workers(changes, recipe, tmp_path):
    recipe = replace(recipe, **changes)
    fit(recipe, tmp_path / 'whole')
    kill(recipe, tmp_path / 'killed', 'between saves')
    fit(recipe, tmp_path / 'killed')
    assert_same_end(tmp_path / 'whole', tmp_path / 'killed')


def test_a_torn_write_leaves_the_state_that_was(recipe, tmp_path, monkeypatch):
    whole = run_folder.save_file

    def torn(tensors, path, metadata):
        if json.loads(metadata['state'])['step'] == 4:
            path.write_bytes(b'half')
            raise OSError('no space left on device')
        whole(tensors, path, metadata)

    fit(recipe, tmp_path / 'whole')
    with monkeypatch.context() as patch:
        patch.setattr(run_folder, 'save_file', torn)
        with pytest.raises(OSError, match='no space left'):
            fit(recipe, tmp_path / 'torn')
    fit(recipe, tmp_path / 'torn')
    assert_same_end(tmp_path / 'whole', tmp_path / 'torn')


def test_resuming_does_not_begin_again(recipe, tmp_path, monkeypatch):
    kill(recipe, tmp_path, 'between saves')
    steps = []
    step = Trainer.step
    monkeypatch.setattr(Trainer, 'step', lambda *batch: steps.append(1) or step(*batch))
    best = fit(recipe, tmp_path)
    assert len(steps) == 2
    assert fit(recipe, tmp_path) == best
    assert len(steps) == 2  # a run that has ended has nothing left to do


def test_a_killed_run_has_the_best_model_of_what_is_saved(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr('llm_mde_train.fit.evaluate', ever_better())
    fit(replace(recipe, steps=2, train='lora'), tmp_path / 'short')
    monkeypatch.setattr('llm_mde_train.fit.evaluate', ever_better())
    monkeypatch.setitem(MOMENTS, 'second model', (Trainer, 'save', 2))
    kill(replace(recipe, train='lora'), tmp_path / 'killed', 'second model')
    assert len(list((tmp_path / 'killed').glob('best_4.new/*'))) == 2
    for name in ('model/model.safetensors', 'adapter/adapter_model.safetensors'):
        one, two = (load_file(tmp_path / run / name) for run in ('short', 'killed'))
        assert all(one[key].equal(two[key]) for key in one)
    fit(replace(recipe, train='lora'), tmp_path / 'killed')
    assert not list((tmp_path / 'killed').glob('*.new'))


def test_a_model_that_was_not_yet_in_place_is_put_there(recipe, tmp_path):
    recipe = replace(recipe, steps=2)  # no later save does it
    kill(recipe, tmp_path, 'state new, model old')
    assert not (tmp_path / 'model').exists()
    assert fit(recipe, tmp_path)['step'] == 2
    assert (tmp_path / 'model' / 'model.safetensors').exists()


def ever_better():
    left = iter([0.3, 0.2, 0.1])
    return lambda *_: {'mean': {'abs_rel': next(left)}}


def test_another_recipe_in_the_same_folder_is_refused(recipe, tmp_path):
    fit(recipe, tmp_path)
    before = (tmp_path / 'model' / 'model.safetensors').read_bytes()
    with pytest.raises(ValueError, match=r'another recipe \(steps, seed differ\): choose another'):
        fit(replace(recipe, steps=7, seed=1), tmp_path)
    assert (tmp_path / 'model' / 'model.safetensors').read_bytes() == before


def test_a_recipe_that_could_not_start_does_not_take_the_folder(recipe, tmp_path):
    with pytest.raises(FileNotFoundError, match='no model'):
        fit(replace(recipe, start_from='nowhere'), tmp_path)
    fit(recipe, tmp_path)


def test_a_run_that_goes_on_names_all_commits_that_made_it(tmp_path):
    folder = run_folder.RunFolder(tmp_path)
    for commit in ('a', 'b', 'b', 'a'):
        folder.claim(recipe={}, made_by={'commit': commit})
    assert json.loads((tmp_path / 'made_by.json').read_text()) == {'commit': 'a, b'}
