"""
What we are compared with: the authors' way and Depth Anything V2-S, with random weights.

Shapes: H and W pixels of the image, Hn and Wn of the network's input.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
import time
from typing import Any

import torch
from torch.nn import functional
from transformers import (
    AutoTokenizer,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    PreTrainedTokenizerBase,
    ViTConfig,
)

from llm_mde_core.bench.authors import AuthorsLLMMDE
from llm_mde_core.bench.case import (
    AUTHORS,
    Case,
    Contender,
    autocast_of,
    camera_of,
    compiled,
    image_of,
)
from llm_mde_core.bench.clock import Stages, wait_for
from llm_mde_core.config import LLMMDEConfig
from llm_mde_core.image import Fit, LLMMDEImageProcessor
from llm_mde_core.model_files import CHECKPOINTS
from llm_mde_core.threads import fewest_threads, using_threads


def authors(case: Case) -> Contender:
    """
    Run the reference: normalised on the device, its output is on the image's grid already.

    It shrinks the image by itself, to a square or, at our input, to what `paper` gets.
    """
    size = (224, 224)
    if case.model != AUTHORS:
        fit = _fit_of('paper', case)
        size = (fit.padded_height, fit.padded_width)
    network = prepared(_authors_network(size), case)
    return Contender(_staged(case, network, lambda rgb: rgb.float() / 255.0), size[::-1])


def depth_anything(case: Case) -> Contender:
    """
    Run Depth Anything with an input of the size that `tiny` gets, in its own patches.

    The image is shrunk and threads are chosen as for `tiny`: what is compared are the networks.
    """
    fit = _fit_of('tiny', case)
    patch = 14
    height, width = (
        max(1, round(side / patch)) * patch for side in (fit.padded_height, fit.padded_width)
    )
    whole = Fit(height=height, width=width, padded_height=height, padded_width=width)
    network = compiled(prepared(_depth_anything_network(), case), case)

    def depth(pixels: torch.Tensor) -> torch.Tensor:
        return network(pixels).predicted_depth[:, None]

    run = _staged(case, depth, whole.to_network)
    threads = fewest_threads(run) if case.device == 'cpu' else torch.get_num_threads()

    def run_as_tiny_does() -> Stages:
        with using_threads(threads):
            return run()

    return Contender(run_as_tiny_does, (width, height))


def _fit_of(preset: str, case: Case) -> Fit:
    """Return how the images of a case enter the network of a preset."""
    processor = LLMMDEImageProcessor.from_config(LLMMDEConfig.from_preset(preset))
    return processor.fit(height=case.height, width=case.width, focal_px=camera_of(case).focal_px)


@cache
def _authors_network(size: tuple[int, int]) -> AuthorsLLMMDE:
    """Return the reference for inputs of this height and width."""
    return AuthorsLLMMDE(tokenizer(), vision_config=ViTConfig(image_size=size))


@cache
def _depth_anything_network() -> DepthAnythingForDepthEstimation:
    return DepthAnythingForDepthEstimation(depth_anything_config())


def depth_anything_config() -> DepthAnythingConfig:
    """Return the architecture of Depth Anything V2-S."""
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
    return DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=384,
        neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64,
    )


def _staged(
    case: Case,
    network: Callable[[torch.Tensor], torch.Tensor],
    to_pixels: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[], Stages]:
    """
    Run a network from uint8 (H, W, 3) on the host to a map (H, W) there.

    `to_pixels` turns uint8 (1, 3, H, W) into the network's input (1, 3, Hn, Wn), 0 to 1.
    """
    device, rgb = torch.device(case.device), torch.from_numpy(image_of(case))
    mean = torch.tensor((0.485, 0.456, 0.406), device=device).view(1, 3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225), device=device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def run() -> Stages:
        start = time.perf_counter()
        pixels = to_pixels(rgb.to(device).permute(2, 0, 1)[None])
        pixels = (pixels - mean) / std
        wait_for(device)
        prepared = time.perf_counter()
        with autocast_of(case):
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


def tokenizer() -> PreTrainedTokenizerBase:
    """Return the bundled tokenizer, for models with random weights."""
    return AutoTokenizer.from_pretrained(CHECKPOINTS / 'tiny')


def prepared(network: Any, case: Case) -> Any:
    """Return a network on the device of the case, ready for inference."""
    return network.to(case.device).eval().requires_grad_(False)
