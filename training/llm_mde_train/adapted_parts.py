"""What few-shot adaptation may change in a model, as a peft adapter of it."""

from __future__ import annotations

import copy
from pathlib import Path
import shutil

import numpy as np
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from llm_mde_core import LLMMDEForDepthEstimation
from llm_mde_core.adapter_config import FILE as CONFIG
from llm_mde_core.image import LLMMDEImageProcessor
from llm_mde_core.lora import BASE, base_sha256, quiet_peft
from llm_mde_core.model_files import CHECKPOINTS
from llm_mde_train.baselines import Predictor, fit_line, pixels_of
from llm_mde_train.samples import Sample

TRAIN_CHOICES = ('lora_head', 'lora', 'head', 'scale_shift')
RANK = 16
LAST_LAYER = 'head.out.3'  # its first output is the position of depth in its range
TRAINED_IN_FULL = {'lora_head': ['head'], 'head': ['head'], 'scale_shift': [LAST_LAYER]}
WEIGHTS = 'adapter_model.safetensors'
UNFINISHED = 'unfinished'  # beside an adapter while the next one is written
REPORTS = ('metrics.json', 'provenance.json', 'report.html')  # of `llm-mde-train adapt`
TOO_WIDE = 'reprogramming.to_prototypes'  # as wide as the vocabulary


def check_choice(train: str) -> None:
    """Raise ValueError when `train` is none of TRAIN_CHOICES."""
    if train not in TRAIN_CHOICES:
        raise ValueError(f'train must be one of {", ".join(TRAIN_CHOICES)}, not {train!r}')


def check_place(out: Path) -> None:
    """Raise ValueError when `out` is a folder of something other than an adapter, or a file."""
    if out.exists() and not out.is_dir():
        raise ValueError(f'{out} is a file: name a folder for the adapter')
    ours = {CONFIG, WEIGHTS, *REPORTS, UNFINISHED}
    held = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if held and not held & ours:
        raise ValueError(f'{out} holds {min(held)!r}, which is of no adapter: name another folder')


def make_adaptable(model: LLMMDEForDepthEstimation, *, train: str) -> PeftModel:
    """
    Freeze a model except for what `train` names: LoRA, the head, both, or its last layer.

    LoRA stands beside every linear map and convolution before the head. Factors that `train`
    does not name stay zero. ValueError for another choice.
    """
    check_choice(train)
    maps, learns = _maps_before_head(model), train.startswith('lora')
    lora = LoraConfig(
        r=RANK if learns else 1,
        lora_alpha=2 * RANK,
        target_modules=maps if learns else maps[:1],  # peft knows no adapter without factors
        modules_to_save=TRAINED_IN_FULL.get(train),
    )
    with quiet_peft():
        network = get_peft_model(model, lora)
    for name, weight in network.named_parameters():
        if 'lora_' in name:
            weight.requires_grad_(learns)
    return network


def _maps_before_head(model: LLMMDEForDepthEstimation) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d | Conv1D)
        and not name.startswith(('head.', 'prompt.', TOO_WIDE))
    ]


def save_adapter(network: PeftModel, out: Path, *, model: str) -> None:
    """
    Write the adapter of a bundled model or of one in a folder, as `load_adapter` reads it.

    One that was there stays until the new one is written; what was said about it goes with it.
    """
    config = copy.deepcopy(network.peft_config['default'])
    bundled = {folder.parent.name for folder in CHECKPOINTS.glob('*/config.json')}
    # The path of a folder means nothing on another machine.
    config.base_model_name_or_path = model if model in bundled else ''
    config.inference_mode = True
    weights = get_peft_model_state_dict(network, save_embedding_layers=False)
    weights = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    # One entry alone: safetensors writes several in any order, and no two adapters were equal.
    metadata = {BASE: base_sha256(network.get_base_model())}
    new = out / UNFINISHED
    try:
        config.save_pretrained(str(new))
        # Not save_file: the file would be the user's alone, and the node may run as another.
        (new / WEIGHTS).write_bytes(save(weights, metadata=metadata))
        for old in (WEIGHTS, *REPORTS):  # rather no adapter for a moment than half of each
            (out / old).unlink(missing_ok=True)
        for part in sorted(new.iterdir()):  # the weights are last
            part.replace(out / part.name)
    finally:
        shutil.rmtree(new, ignore_errors=True)


@torch.no_grad()
def fit_scale_shift(network: PeftModel, predict: Predictor, shots: list[Sample]) -> None:
    """
    Set two numbers of the last layer so that the shots come out best; nothing is trained.

    They are gain and bias of depth's position in its range, before the sigmoid, which makes them
    scale and exponent of depth in the middle of the range.
    """
    model = network.get_base_model()
    pairs = [_positions(model, predict, shot) for shot in shots]
    predicted, true = (np.concatenate(column) for column in zip(*pairs, strict=True))
    inside = 1.0 / (1.0 + np.exp(-true))
    gain, bias = fit_line(predicted, true, weights=inside * (1.0 - inside))
    last = model.get_submodule(LAST_LAYER).modules_to_save['default']
    last.weight[0] *= gain
    last.bias[0] = gain * last.bias[0] + bias


def _positions(
    model: LLMMDEForDepthEstimation, predict: Predictor, shot: Sample
) -> tuple[np.ndarray, np.ndarray]:
    """Return where predicted and true depths of a shot lie in the range, before the sigmoid."""
    camera, config, head = shot.camera, model.config, model.head
    fit = LLMMDEImageProcessor.from_config(config).fit(
        height=camera.height, width=camera.width, focal_px=camera.focal_px
    )
    focal_px = camera.resized(width=fit.width, height=fit.height).focal_px
    low = head.log_min + np.log(focal_px / config.canonical_focal_px)
    predicted, true = (
        ((np.log(depth_m) - low) / (head.log_max - head.log_min)).clip(1e-3, 1.0 - 1e-3)
        for depth_m in pixels_of(predict, [shot])
    )
    return np.log(predicted / (1.0 - predicted)), np.log(true / (1.0 - true))
