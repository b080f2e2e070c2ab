"""A GPU without memory: what the frame that met it gets, and the ones after it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from adapter_bench import CAMERA, RGB, Estimator
import numpy as np
import pytest
import torch

from llm_mde_core.estimator import DepthEstimator
from llm_mde_core.geometry import Camera
from llm_mde_ros.model_loading import (
    ON_THE_CPU,
    LoadedModel,
    load_model,
)
from llm_mde_ros.parameters import DepthNodeParameters
from llm_mde_ros.served_model import OUT_OF_MEMORY, ServedModel

LOG = SimpleNamespace(info=lambda _: None, warning=lambda _: None)


def test_out_of_memory_is_an_error_until_a_frame_succeeds():
    model, estimator = ServedModel(cpu_fallback=lambda: False), Estimator()
    model.serve(LoadedModel(estimator))
    estimator.errors.append(torch.OutOfMemoryError('CUDA out of memory'))
    with pytest.raises(RuntimeError, match='out of memory'):
        model.infer(RGB, CAMERA)
    assert model.error == OUT_OF_MEMORY
    assert float(model.infer(RGB, CAMERA).depth[0, 0]) == 2.0
    assert model.error == ''


def test_with_cpu_fallback_the_same_frame_gets_its_depth_from_the_cpu():
    model, estimator = ServedModel(cpu_fallback=lambda: True), Estimator()
    model.serve(LoadedModel(estimator, 'mine', warnings=('Beware.',)))
    estimator.errors.append(torch.OutOfMemoryError('CUDA out of memory'))
    assert float(model.infer(RGB, CAMERA).depth[0, 0]) == 3.0
    assert model.error == ''
    assert model.adapter == 'mine'
    assert model.loaded.warnings == ('Beware.', ON_THE_CPU)
    assert float(model.infer(RGB, CAMERA).depth[0, 0]) == 3.0


def test_a_network_that_moves_to_the_cpu_sees_the_same(tiny_model_dir: Path, rgb: np.ndarray):
    camera = Camera.from_hfov(width=64, height=48, hfov_deg=60.0)
    reduced = DepthEstimator.from_pretrained(tiny_model_dir, device='cpu', precision='bf16')
    before_m = reduced.infer(rgb, camera).depth_m
    after = reduced.on_cpu()
    assert {weight.dtype for weight in after.model.parameters()} == {torch.float32}
    np.testing.assert_allclose(after.infer(rgb, camera).depth_m, before_m, rtol=0.05)


@pytest.mark.parametrize('allowed', [False, True])
def test_a_gpu_that_is_too_small_for_the_model(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, allowed: bool
):
    load, devices = DepthEstimator.from_pretrained, []

    def too_large(model: str, *, device: str, **more: object) -> DepthEstimator:
        devices.append(device)
        if device != 'cpu':
            raise torch.OutOfMemoryError('CUDA out of memory')
        return load(model, device=device, **more)

    monkeypatch.setattr(DepthEstimator, 'from_pretrained', too_large)
    parameters = DepthNodeParameters(
        model=str(tiny_model_dir), device='cuda', cpu_fallback=allowed, warm_up_width=0
    )
    if not allowed:
        with pytest.raises(RuntimeError, match='out of memory'):
            load_model(parameters, LOG)
        return
    assert load_model(parameters, LOG).warnings == (ON_THE_CPU,)
    assert devices == ['cuda', 'cpu']
