"""
What is measured: our networks, the authors' way and Depth Anything V2-S, behind one call.

Shapes: B batch, H and W pixels of the image, Hn and Wn of the network's input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import (
    AutoTokenizer,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    PreTrainedTokenizerBase,
)

from llm_mde_core.bench.authors import AuthorsLLMMDE
from llm_mde_core.bench.clock import Stages, seconds_of, wait_for
from llm_mde_core.config import PRESETS, LLMMDEConfig
from llm_mde_core.device import PRECISIONS
from llm_mde_core.estimator import CHECKPOINTS, DepthEstimator
from llm_mde_core.geometry import Camera
from llm_mde_core.image import LLMMDEImageProcessor
from llm_mde_core.model import LLMMDEForDepthEstimation

AUTHORS = 'authors'
DEPTH_ANYTHING = 'depth-anything-v2-small'
HFOV_DEG = 60.0


@dataclass(frozen=True)
class Case:
    """
    One thing to measure.

    Door 'frame': an image, uint8 (height, width, 3) in the host's memory, to its depth there.
    Door 'network': `batch` inputs of the network, (B, 3, height, width), made whole patches, to
    their depth, both on the device.
    """

    model: str  # a preset, a bundled name, a folder, AUTHORS or DEPTH_ANYTHING
    width: int
    height: int
    door: str = 'frame'
    batch: int = 1
    precision: str = 'fp32'
    compile: str = 'off'
    device: str = 'cpu'

    def __str__(self) -> str:
        return (
            f'{self.model} {self.door} {self.width}x{self.height} batch {self.batch} '
            f'{self.precision}{" compiled" if self.compile == "on" else ""}'
        )


@dataclass(frozen=True)
class Contender:
    """A case that is ready to run."""

    run: Callable[[], Stages]
    input_size: tuple[int, int]  # width and height of the network's input


def open_contender(case: Case) -> Contender:
    """Load what a case needs; every run takes one image or batch through it."""
    if case.door == 'network':
        return _network_of(case)
    if case.model == AUTHORS:
        return _authors(case)
    if case.model == DEPTH_ANYTHING:
        return _depth_anything(case)
    return _estimator_frame(case)


def camera_of(case: Case) -> Camera:
    """Return a camera of the case's size."""
    return Camera.from_hfov(width=case.width, height=case.height, hfov_deg=HFOV_DEG)


def tokenizer() -> PreTrainedTokenizerBase:
    """Return the bundled tokenizer, for models with random weights."""
    return AutoTokenizer.from_pretrained(CHECKPOINTS / 'tiny')


def random_model(preset: str) -> LLMMDEForDepthEstimation:
    """Build a preset with random weights, without downloads."""
    torch.manual_seed(0)
    config = LLMMDEConfig.from_preset(preset, vision_name='', language_name='')
    return LLMMDEForDepthEstimation.create(config, tokenizer())


@cache
def estimator_of(model: str, *, device: str, precision: str, compile: str) -> DepthEstimator:
    """Load a bundled model or a folder; other presets get random weights."""
    if model in PRESETS and not (CHECKPOINTS / model).exists():
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


def _estimator_frame(case: Case) -> Contender:
    estimator, camera, rgb = _estimator_of(case), camera_of(case), _image(case)

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
    model = _compiled(estimator.model, case)
    device = estimator.device
    patch = estimator.model.config.patch_px
    height, width = (-(-side // patch) * patch for side in (case.height, case.width))
    pixels = torch.rand(case.batch, 3, height, width, device=device)
    focal_px = torch.full((case.batch,), estimator.model.config.canonical_focal_px, device=device)

    @torch.inference_mode()
    def run() -> Stages:
        with _autocast(case):
            return {'total': seconds_of(lambda: model(pixels, focal_px), device)}

    return Contender(run, (width, height))


def _authors(case: Case) -> Contender:
    """Run the reference: normalised on the device, its output is on the image's grid already."""
    network = _prepared(_authors_network(), case)
    size = network.image_size
    return Contender(_staged(case, network, lambda pixels: pixels), (size, size))


def _depth_anything(case: Case) -> Contender:
    """Run Depth Anything with an input of the size that `tiny` gets, in its own patches."""
    config = LLMMDEConfig.from_preset('tiny')
    fit = LLMMDEImageProcessor.from_config(config).fit(
        height=case.height, width=case.width, focal_px=camera_of(case).focal_px
    )
    patch = 14
    height, width = (
        max(1, round(side / patch)) * patch for side in (fit.padded_height, fit.padded_width)
    )
    network = _compiled(_prepared(_depth_anything_network(), case), case)

    def fitted(pixels: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(
            pixels, (height, width), mode='bilinear', align_corners=False, antialias=True
        )

    def depth(pixels: torch.Tensor) -> torch.Tensor:
        return network(pixels).predicted_depth[:, None]

    return Contender(_staged(case, depth, fitted), (width, height))


@cache
def _authors_network() -> AuthorsLLMMDE:
    return AuthorsLLMMDE(tokenizer())


@cache
def _depth_anything_network() -> DepthAnythingForDepthEstimation:
    """Return the architecture of Depth Anything V2-S with random weights."""
    backbone = Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
        out_indices=[3, 6, 9, 12],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=384,
        neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64,
    )
    return DepthAnythingForDepthEstimation(config)


def _staged(
    case: Case,
    network: Callable[[torch.Tensor], torch.Tensor],
    fitted: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[], Stages]:
    """Run a network from uint8 (H, W, 3) on the host to a map (H, W) there."""
    device, rgb = torch.device(case.device), torch.from_numpy(_image(case))
    mean = torch.tensor((0.485, 0.456, 0.406), device=device).view(1, 3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225), device=device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def run() -> Stages:
        start = time.perf_counter()
        pixels = fitted(rgb.to(device).permute(2, 0, 1)[None].float() / 255.0)
        pixels = (pixels - mean) / std
        wait_for(device)
        prepared = time.perf_counter()
        with _autocast(case):
            maps = network(pixels)
        wait_for(device)
        estimated = time.perf_counter()
        if maps.shape[-2:] != rgb.shape[:2]:
            maps = functional.interpolate(maps.float(), rgb.shape[:2], mode='bilinear')
        maps[0, 0].float().cpu()
        end = time.perf_counter()
        return {
            'preprocess': prepared - start,
            'network': estimated - prepared,
            'postprocess': end - estimated,
            'total': end - start,
        }

    return run


def _prepared(network: Any, case: Case) -> Any:
    return network.to(case.device).eval().requires_grad_(False)


def _compiled(network: nn.Module, case: Case) -> Callable[..., Any]:
    if case.compile == 'off':
        return network
    mode = 'reduce-overhead' if torch.device(case.device).type == 'cuda' else 'default'
    return torch.compile(network, mode=mode, dynamic=False)


def _autocast(case: Case) -> torch.autocast:
    dtype = PRECISIONS[case.precision]
    kind = torch.device(case.device).type
    return torch.autocast(kind, dtype=dtype, enabled=dtype != torch.float32)


def _image(case: Case) -> np.ndarray:
    """Return an image like any other: smooth, with noise."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0 : case.height, 0 : case.width]
    smooth = np.stack([rows, columns, rows + columns], axis=2) % 200
    return (smooth + random.integers(0, 56, smooth.shape)).astype(np.uint8)
