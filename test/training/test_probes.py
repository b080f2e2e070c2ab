"""What a model's metres depend on: against models whose dependence is known."""

from __future__ import annotations

from types import SimpleNamespace

from conftest import small_config
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from llm_mde_core import Camera, DepthEstimator, LLMMDEForDepthEstimation
from llm_mde_train.cli import app
from llm_mde_train.probes import BLIND, LENS, language_change, lens_change


class SlantedWall:
    """Sees a wall that does not turn with the lens; `by_lens` makes longer lenses see farther."""

    def __init__(self, by_lens: float) -> None:
        self.by_lens = by_lens

    def infer(self, rgb: np.ndarray, camera: Camera) -> SimpleNamespace:
        row, column = np.mgrid[: camera.height, : camera.width]
        x, y = (column - camera.cx) / camera.fx, (row - camera.cy) / camera.fy
        depth_m = 2 + x + 0.5 * y + np.where(x > 0.2, 5.0, 0.0)
        return SimpleNamespace(depth_m=depth_m * (camera.fx / LENS.fx) ** self.by_lens)


@pytest.mark.parametrize(('by_lens', 'change'), [(0.0, 0.0), (1.0, BLIND), (-0.5, BLIND / 2)])
def test_the_change_by_a_longer_lens(by_lens: float, change: float) -> None:
    assert lens_change(SlantedWall(by_lens), rooms=1) == pytest.approx(change, abs=2e-3)


@pytest.fixture
def estimator(tiny_model_dir) -> DepthEstimator:
    return DepthEstimator.from_pretrained(tiny_model_dir, device='cpu', compile='off')


def test_a_language_model_that_says_one_thing_is_not_heard(estimator) -> None:
    assert language_change(estimator, rooms=2) > 1e-4
    language = estimator.model.language
    language.register_forward_hook(lambda _module, _inputs, tokens: torch.ones_like(tokens))
    assert language_change(estimator, rooms=2) == 0.0
    assert len(language._forward_hooks) == 1  # its own are gone


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ['probe', '--device', 'cpu', *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_tells_both(estimator, tiny_model_dir) -> None:
    shown = run(tiny_model_dir, '--rooms', 1)
    assert f'{lens_change(estimator, rooms=1):.3f} (blind: 0.29)' in shown
    assert f'{language_change(estimator, rooms=1):.1%}' in shown


def test_a_model_without_language_is_told(tmp_path) -> None:
    LLMMDEForDepthEstimation(small_config(language='none')).save_pretrained(tmp_path)
    assert 'no language model' in run(tmp_path, '--rooms', 1)
