"""A compiled frame says the same; where it cannot be compiled it runs all the same."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn
from torch._inductor import config as inductor
from torch._inductor.utils import fresh_cache

from llm_mde_core.compiled import compile_frame
from llm_mde_core.config import LLMMDEConfig
from llm_mde_core.frame import Frame
from llm_mde_core.image import Fit
from llm_mde_core.model import LLMMDEOutput


class Brightness(nn.Module):
    """The least that can stand in for the network: compiled in seconds."""

    config = LLMMDEConfig(language='none')

    def forward(self, pixels: torch.Tensor, focal_px: torch.Tensor, _: Any) -> LLMMDEOutput:
        depth = 1.0 + pixels.mean(dim=1) * focal_px
        return LLMMDEOutput(predicted_depth=depth, log_spread=-depth)


@pytest.fixture
def frame() -> Frame:
    torch.compiler.reset()
    fit = Fit(height=12, width=16, padded_height=16, padded_width=16)
    return Frame(Brightness(), fit, height=24, width=32)


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor, None]:
    return torch.randint(0, 256, (24, 32, 3), dtype=torch.uint8), torch.tensor([3.0]), None


def test_a_compiled_frame_says_the_same(frame: Frame, inputs: tuple[Any, ...]) -> None:
    with torch.inference_mode():
        compiled = compile_frame(frame, *inputs)
        assert compiled is not frame
        rgb, focal_px, _ = inputs
        for inputs_now in (inputs, (255 - rgb, focal_px * 2, None)):
            plain, fast = frame(*inputs_now), compiled(*inputs_now)
            torch.testing.assert_close(fast.depth, plain.depth)
            torch.testing.assert_close(fast.certainty, plain.certainty)


def test_without_a_compiler_it_runs_eagerly_and_says_so_once(
    frame: Frame,
    inputs: tuple[Any, ...],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(inductor.cpp, 'cxx', ('/nonexistent/c++',))
    with fresh_cache(), torch.inference_mode(), caplog.at_level(logging.WARNING):
        run = compile_frame(frame, *inputs)
        assert torch.equal(run(*inputs).depth, frame(*inputs).depth)
    assert run is frame
    [record] = [record for record in caplog.records if record.name == 'llm_mde_core.compiled']
    assert 'not compiled' in record.getMessage()
    assert '/nonexistent/c++' in record.getMessage()
