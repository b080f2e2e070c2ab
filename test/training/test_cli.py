"""The command llm-mde-train, as users run it."""

from __future__ import annotations

from pathlib import Path
import re

import pytest
from safetensors import SafetensorError
from typer.testing import CliRunner

from llm_mde_train.cli import app
from llm_mde_train.trainer import DivergenceError

RECIPE = """
steps: 2
batch_size: 2
warmup_steps: 0
workers: 0
validation_rooms: 1
real_fraction: 1.0
sets: [kitchen_train]
training_data: a kitchen
"""


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def recipe(tmp_path, tiny_model_dir) -> Path:
    path = tmp_path / 'recipe.yaml'
    path.write_text(f'start_from: {tiny_model_dir}\n{RECIPE}', encoding='utf-8')
    return path


def test_fit_then_evaluate(recipe, index, tmp_path):
    trained = run('fit', recipe, '--index', index, '--out', tmp_path / 'run')
    assert trained.exit_code == 0, trained.output
    assert re.search(r'step 0 of (\d+): .*\nstep', trained.output)  # a log file shows it, too
    assert str(tmp_path / 'run' / 'model') in trained.output.replace('\n', '')
    judged = run(
        *('evaluate', '--model', tmp_path / 'run' / 'model', '--index', index),
        *('--sets', 'kitchen_train,office', '--device', 'cpu'),
    )
    assert judged.exit_code == 0, judged.output
    assert 'kitchen' in judged.output


def test_recipe_of_real_frames_needs_their_index(recipe, tmp_path):
    failed = run('fit', recipe, '--out', tmp_path / 'run')
    assert failed.exit_code == 1
    assert "the recipe trains on ['kitchen_train']: say where with --index" in failed.output
    assert not (tmp_path / 'run').exists()


def test_mistyped_key_is_a_sentence(recipe):
    recipe.write_text('stpes: 3\n')
    failed = run('fit', recipe)
    assert failed.exit_code == 1
    assert "did you mean 'steps'" in failed.output


@pytest.mark.parametrize(
    ('error', 'is_a_sentence'),
    [
        (DivergenceError('lower the learning rate'), True),
        (OSError('no space left'), True),
        (SafetensorError('a file cut off'), True),
        (RuntimeError('CUDA out of memory'), False),
    ],
)
def test_what_users_cannot_mend_keeps_its_traceback(
    error, is_a_sentence, monkeypatch, recipe, index
):
    def fail(*_):
        raise error

    monkeypatch.setattr('llm_mde_train.commands.fit.run_fit', fail)
    failed = run('fit', recipe, '--index', index)
    assert failed.exit_code == 1
    assert (f'Error: {error}' in failed.output) == is_a_sentence
    assert (failed.exception is error) != is_a_sentence


def test_help_names_both_commands():
    shown = run('--help').output
    assert 'fit' in shown
    assert 'evaluate' in shown
