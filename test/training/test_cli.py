"""The command llm-mde-train, as users run it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from llm_mde_core import DepthEstimator
from llm_mde_train.cli import app
from llm_mde_train.evaluate import evaluate
from llm_mde_train.folders import read_index

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
    assert str(tmp_path / 'run' / 'model') in trained.output.replace('\n', '')
    report = tmp_path / 'report.json'
    judged = run(
        *('evaluate', '--model', tmp_path / 'run' / 'model', '--index', index),
        *('--sets', 'kitchen_train,office', '--device', 'cpu', '--json', report),
    )
    assert judged.exit_code == 0, judged.output
    found = json.loads(report.read_text())
    assert list(found['scenes']) == ['kitchen', 'office', 'mean']
    estimator = DepthEstimator.from_pretrained(tmp_path / 'run' / 'model', device='cpu')
    expected = evaluate(estimator, read_index(index))
    assert found['scenes']['mean'] == pytest.approx(expected['mean'])
    assert found['crop'] == 'none'
    assert 'constant: 2.00 m everywhere' in judged.output


def test_constant_comes_from_the_sets_asked_for(index, tmp_path, tiny_model_dir):
    report = tmp_path / 'report.json'
    judged = run(
        *('evaluate', '--model', tiny_model_dir, '--index', index, '--sets', 'kitchen_train'),
        *('--constant-from', 'office', '--device', 'cpu', '--json', report),
    )
    assert judged.exit_code == 0, judged.output
    found = json.loads(report.read_text())
    assert found['constant_m'] == 4.0
    assert found['constant']['kitchen']['abs_rel'] == pytest.approx(np.mean([3.0, 1.0]))


def test_scenes_can_be_left_out(index, tmp_path, tiny_model_dir):
    report = tmp_path / 'report.json'
    arguments = (
        *('evaluate', '--model', tiny_model_dir, '--index', index, '--device', 'cpu'),
        *('--sets', 'kitchen_train,office', '--json', report),
    )
    assert run(*arguments, '--leave-out', 'office').exit_code == 0
    assert list(json.loads(report.read_text())['scenes']) == ['kitchen', 'mean']
    nothing = run(*arguments, '--leave-out', 'office, kitchen')
    assert nothing.exit_code == 1
    assert 'no frame with known depth' in nothing.output


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--sets', 'offce'], "no set 'offce'"),
        (['--sets', 'office', '--crop', 'eigen'], 'the Eigen crop is of 480 x 640 pixels'),
        (['--sets', 'office', '--crop', 'garg'], "crop must be one of ('none', 'eigen')"),
        (['--sets', 'office', '--model', 'nowhere'], "no model 'nowhere'"),
        (['--sets', 'office', '--adapter', 'nowhere'], 'no adapter in nowhere'),
    ],
)
def test_what_users_can_mend_is_a_sentence(arguments, sentence, index, tiny_model_dir):
    defaults = ['evaluate', '--index', index, '--model', tiny_model_dir, '--device', 'cpu']
    failed = run(*defaults, *arguments)
    assert failed.exit_code == 1
    assert f'Error: {sentence}' in failed.output


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


def test_help_names_both_commands():
    shown = run('--help').output
    assert 'fit' in shown
    assert 'evaluate' in shown
