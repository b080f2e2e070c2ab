"""A GPU without memory, in all the words that it has for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from llm_mde_core.geometry import Camera
from llm_mde_ros.model_loading import ON_THE_CPU, LoadedModel, load_model
from llm_mde_ros.parameters import DepthNodeParameters
from llm_mde_ros.served_model import OUT_OF_MEMORY, ServedModel

CAMERA = Camera.from_hfov(width=8, height=6, hfov_deg=60.0)
RGB = np.zeros((6, 8, 3), np.uint8)
NO_MEMORY = {
    'torch': torch.OutOfMemoryError('CUDA out of memory'),
    'pinned memory': RuntimeError('CUDA error: out of memory'),
    'cuBLAS': RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`'),
    'cuDNN': RuntimeError('cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED'),
}
ILLEGAL = RuntimeError('CUDA error: an illegal memory access was encountered')


class Estimator:
    """Fails on the GPU, and says on the CPU where it is."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def infer(self, rgb: np.ndarray, camera: Camera) -> str:
        if self.error is not None:
            raise self.error
        return 'from the CPU'

    def on_cpu(self) -> Estimator:
        return Estimator(None)

    def info(self) -> dict[str, str]:
        return {'model': 'stand-in', 'license': 'half of a character: \ud800'}


def served(error: Exception, *, cpu_fallback: bool) -> ServedModel:
    model = ServedModel(cpu_fallback=lambda: cpu_fallback)
    model.serve(LoadedModel(Estimator(error)))
    return model


@pytest.mark.parametrize('of', NO_MEMORY)
def test_a_frame_without_memory_is_told_or_comes_from_the_cpu(of: str):
    model = served(NO_MEMORY[of], cpu_fallback=False)
    with pytest.raises(RuntimeError) as caught:
        model.infer(RGB, CAMERA)
    assert caught.value is NO_MEMORY[of]
    assert model.error == OUT_OF_MEMORY
    model = served(NO_MEMORY[of], cpu_fallback=True)
    assert model.infer(RGB, CAMERA) == 'from the CPU'
    assert model.loaded.warnings == (ON_THE_CPU,)


def test_another_error_is_none_of_memory():
    model = served(ILLEGAL, cpu_fallback=True)
    with pytest.raises(RuntimeError, match='illegal'):
        model.infer(RGB, CAMERA)
    assert model.error == ''
    assert model.loaded.warnings == ()


@pytest.mark.parametrize('of', NO_MEMORY)
def test_a_model_that_finds_no_memory_is_loaded_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, of: str
):
    assert loads_on(monkeypatch, NO_MEMORY[of]) == ['cuda', 'cpu']


def test_a_model_that_fails_otherwise_is_not(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(RuntimeError, match='illegal'):
        loads_on(monkeypatch, ILLEGAL)


def loads_on(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[str]:
    """Return the devices that are tried where the GPU gives an error."""
    devices = []

    def load(_model: str, *, device: str, **_more: Any) -> Any:
        devices.append(device)
        if device != 'cpu':
            raise error
        return Estimator(None)

    stand_in = SimpleNamespace(from_pretrained=load)
    monkeypatch.setattr('llm_mde_ros.model_loading.DepthEstimator', stand_in)
    parameters = DepthNodeParameters(device='cuda', cpu_fallback=True, warm_up_width=0)
    load_model(parameters, log=None)
    return devices


def test_what_a_model_says_of_itself_can_be_published():
    LoadedModel(Estimator(None)).identity['license'].encode()
