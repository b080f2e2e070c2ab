"""`llm-mde-train calibrate`, as users run it."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from llm_mde_core import DepthEstimator
from llm_mde_train.calibration import fit_spread, spread_counts
from llm_mde_train.cli import app
from llm_mde_train.folders import read_index


def run(*arguments: object):
    return CliRunner().invoke(app, ['calibrate', '--device', 'cpu', *map(str, arguments)])


def test_a_factor_is_told_and_written_only_when_asked_for(index, tiny_model_dir, tmp_path):
    model = shutil.copytree(tiny_model_dir, tmp_path / 'model')
    estimator = DepthEstimator.from_pretrained(model, device='cpu')
    fit = fit_spread(spread_counts(estimator, read_index(index)))
    shown = run(model, '--index', index)
    assert shown.exit_code == 0, shown.output
    assert f'factor {fit.factor:.3f}' in shown.output
    assert ('not expected to help' in shown.output) == (not fit.helps)
    assert json.loads((model / 'config.json').read_text())['spread_factor'] == 1.0
    assert run(model, '--index', index, '--write').exit_code == 0
    written = DepthEstimator.from_pretrained(model, device='cpu').model.config.spread_factor
    assert written == pytest.approx(fit.factor)


def test_an_unknown_set_is_a_sentence(index, tiny_model_dir):
    shown = run(tiny_model_dir, '--index', index, '--sets', 'attic')
    assert shown.exit_code == 1
    assert "no set 'attic'" in shown.output
