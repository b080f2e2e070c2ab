"""
Our networks, and what they are compared with, behind one call.

Shapes: B batch.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
import time

import torch

from llm_mde_core.bench.case import (
    AUTHORS,
    AUTHORS_AT_OUR_INPUT,
    DEPTH_ANYTHING,
    Case,
    Contender,
    autocast_of,
    camera_of,
    compiled,
    image_of,
)
from llm_mde_core.bench.clock import Stages, seconds_of
from llm_mde_core.bench.references import authors, depth_anything, tokenizer
from llm_mde_core.config import PRESETS, LLMMDEConfig
from llm_mde_core.estimator import DepthEstimator
from llm_mde_core.export import export
from llm_mde_core.model import LLMMDEForDepthEstimation
from llm_mde_core.model_files import CHECKPOINTS


def open_contender(case: Case) -> Contender:
    """Load what a case needs; every run takes one image or batch through it."""
    if case.door == 'network':
        return _network_of(case)
    if case.model in (AUTHORS, AUTHORS_AT_OUR_INPUT):
        return authors(case)
    if case.model == DEPTH_ANYTHING:
        return depth_anything(case)
    return _estimator_frame(case)


def random_model(preset: str) -> LLMMDEForDepthEstimation:
    """Build a preset with random weights, without downloads."""
    torch.manual_seed(0)
    config = LLMMDEConfig.from_preset(preset, vision_name='', language_name='')
    return LLMMDEForDepthEstimation.create(config, tokenizer())


@cache
def estimator_of(model: str, *, device: str, precision: str, compile: str) -> DepthEstimator:
    """Load a bundled model or a folder; other presets get random weights."""
    if _is_random(model):
        return DepthEstimator(
            random_model(model), name=model, device=device, precision=precision, compile=compile
        )
    return DepthEstimator.from_pretrained(
        model, device=device, precision=precision, compile=compile
    )


def _estimator_of(case: Case) -> DepthEstimator:
    return estimator_of(
        case.model, device=case.device, precision=case.precision, compile=case.compile
    )


def _exported(case: Case) -> DepthEstimator:
    """Export the model for the camera of the case, and load what was written."""
    with TemporaryDirectory() as scratch:
        source, out = case.model, Path(scratch, 'exported')
        if _is_random(case.model):
            source = str(Path(scratch, case.model))
            random_model(case.model).save_pretrained(source)
        export(source, camera_of(case), out)
        return DepthEstimator.from_pretrained(out, device=case.device)


def _is_random(model: str) -> bool:
    return model in PRESETS and not (CHECKPOINTS / model).exists()


def _estimator_frame(case: Case) -> Contender:
    estimator = _exported(case) if case.compile == 'onnx' else _estimator_of(case)
    camera, rgb = camera_of(case), image_of(case)
    estimator.warm_up(camera)

    def run() -> Stages:
        start = time.perf_counter()
        prediction = estimator.infer(rgb, camera)
        assert prediction.depth_m.shape == rgb.shape[:2]  # brings depth to the host
        total = time.perf_counter() - start
        to_host = total - sum(prediction.stage_s.values())
        return {**prediction.stage_s, 'to host': to_host, 'total': total}

    fit = estimator.processor.fit(height=case.height, width=case.width, focal_px=camera.focal_px)
    return Contender(run, (fit.padded_width, fit.padded_height))


def _network_of(case: Case) -> Contender:
    estimator = estimator_of(
        case.model, device=case.device, precision=case.precision, compile='off'
    )
    model = compiled(estimator.model, case)
    device = estimator.device
    patch = estimator.model.config.patch_px
    height, width = (-(-side // patch) * patch for side in (case.height, case.width))
    pixels = torch.rand(case.batch, 3, height, width, device=device)
    focal_px = torch.full((case.batch,), estimator.model.config.canonical_focal_px, device=device)

    @torch.inference_mode()
    def run() -> Stages:
        with autocast_of(case):
            constants = estimator.model.constants()
            return {'total': seconds_of(lambda: model(pixels, focal_px, constants), device)}

    return Contender(run, (width, height))
