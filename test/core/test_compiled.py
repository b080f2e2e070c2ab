"""A compiled frame says the same; what cannot be compiled runs all the same."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo import config as dynamo

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


class Looks(Brightness):
    """Looks at a value on the host, which no graph can."""

    def forward(self, pixels: torch.Tensor, focal_px: torch.Tensor, _: Any) -> LLMMDEOutput:
        if focal_px.item() > 1:
            pixels = 1.0 - pixels
        return super().forward(pixels, focal_px, _)


def test_what_is_no_graph_runs_eagerly_and_says_so_once(
    frame: Frame, inputs: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    frame.model = Looks()
    with torch.inference_mode(), caplog.at_level(logging.WARNING):
        run = compile_frame(frame, *inputs)
        assert torch.equal(run(*inputs).depth, frame(*inputs).depth)
    assert run is frame
    [record] = [record for record in caplog.records if record.name == 'llm_mde_core.compiled']
    assert 'not compiled' in record.getMessage()


NO_MEMORY = {  # as torch says it, a library that it calls, and inductor
    'torch': torch.OutOfMemoryError('CUDA out of memory'),
    'cuBLAS': RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED'),
    'inductor': RuntimeError("backend='inductor' raised:\nOutOfMemoryError: CUDA out of memory"),
}


@pytest.mark.parametrize('of', NO_MEMORY)
@pytest.mark.parametrize('is_enough_for_eager', [True, False])
def test_a_compilation_without_memory_is_told_and_its_caller_when_the_frame_has_none_either(
    frame: Frame,
    inputs: tuple[Any, ...],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    of: str,
    is_enough_for_eager: bool,
) -> None:
    def fail(*_: Any) -> None:
        if not is_enough_for_eager:
            frame.forward = fail
        raise NO_MEMORY[of]

    monkeypatch.setattr(torch, 'compile', lambda *_, **__: fail)
    with torch.inference_mode(), caplog.at_level(logging.WARNING):
        if is_enough_for_eager:
            assert compile_frame(frame, *inputs) is frame
        else:
            with pytest.raises(RuntimeError) as caught:
                compile_frame(frame, *inputs)
            assert caught.value is NO_MEMORY[of]
    assert 'not compiled, which is slower: out of memory' in caplog.text


def test_more_cameras_are_compiled_than_torch_allows_of_one_code(
    inputs: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    torch.compiler.reset()
    with (
        dynamo.patch(recompile_limit=1),
        torch.inference_mode(),
        caplog.at_level(logging.WARNING),
    ):
        for height in (8, 9):
            fit = Fit(height=height, width=16, padded_height=32, padded_width=16)
            frame = Frame(Brightness(), fit, height=24, width=32)
            assert compile_frame(frame, *inputs) is not frame
    assert not caplog.records
