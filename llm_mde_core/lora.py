"""LoRA through peft: added for training, folded into the weights for inference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import hashlib
from pathlib import Path
import re
import warnings

from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors import safe_open
from safetensors.torch import load_file
import torch

from llm_mde_core.adapter_config import RANK_PATTERNS, projections_of, read_adapter_config
from llm_mde_core.model import LLMMDEForDepthEstimation

TRAINED_IN_FULL = ('reprogramming', 'prompt', 'bottleneck', 'head')
METRES = ('canonical_focal_px', 'image_size', 'min_depth_m', 'max_depth_m')  # of a configuration
BASE = 'base_sha256'  # in the metadata of an adapter's weights: for which model they were made


@contextmanager
def quiet_peft() -> Iterator[None]:
    """
    Silence two warnings of peft.

    It reads a property that transformers 5.23 calls deprecated, and says what it does where
    linear maps stand beside GPT-2's, which are the other way round.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='`is_gradient_checkpointing` is deprecated')
        warnings.filterwarnings('ignore', message='fan_in_fan_out is set to')
        yield


def add_lora(
    model: LLMMDEForDepthEstimation, *, train_in_full: tuple[str, ...] = TRAINED_IN_FULL
) -> PeftModel | LLMMDEForDepthEstimation:
    """
    Freeze the model, put LoRA on both backbones and train `train_in_full`.

    The ranks are the configuration's; a rank of 0 leaves that backbone frozen without LoRA, and
    two of them leave the model without peft. Raises ValueError when nothing would be trained.
    """
    config = model.config
    ranks = {'vision': config.lora_vision_rank}
    alphas = {'vision': config.lora_vision_alpha}
    if config.language != 'none':
        ranks['language'] = config.lora_language_rank
        alphas['language'] = config.lora_language_alpha
    parts = [part for part, rank in ranks.items() if rank > 0]
    full = [name for name in train_in_full if hasattr(model, name)]
    if not parts and not full:
        raise ValueError('nothing to train: both LoRA ranks are 0 and no part is trained in full')
    if not parts:
        model.requires_grad_(False)
        for name in full:
            getattr(model, name).requires_grad_(True)
        return model
    lora = LoraConfig(
        r=ranks[parts[0]],
        lora_alpha=alphas[parts[0]],
        target_modules=projections_of(*parts),
        rank_pattern={RANK_PATTERNS[part]: ranks[part] for part in parts},
        alpha_pattern={RANK_PATTERNS[part]: alphas[part] for part in parts},
        modules_to_save=full or None,
    )
    with quiet_peft():
        return get_peft_model(model, lora)


def count_trainable(model: LLMMDEForDepthEstimation) -> int:
    """Return how many parameters `add_lora` would train."""
    config = model.config
    ranks = {'vision': config.lora_vision_rank, 'language': config.lora_language_rank}
    full = [getattr(model, name) for name in TRAINED_IN_FULL if hasattr(model, name)]
    count = sum(p.numel() for part in full for p in part.parameters())
    for name, module in model.named_modules():
        for part, rank in ranks.items():
            if re.fullmatch(RANK_PATTERNS[part], name):
                count += rank * sum(module.weight.shape)
    return count


def base_sha256(model: LLMMDEForDepthEstimation) -> str:
    """
    Return the digest of a model's own weights and of the camera and range that its metres mean.

    Hexadecimal, the same with an adapter on it.
    """
    own = {
        name.replace('.base_layer.', '.').replace('.original_module.', '.'): weight
        for name, weight in model.state_dict().items()
        if '.lora_' not in name and '.modules_to_save.' not in name
    }
    digest = hashlib.sha256(
        repr([(name, getattr(model.config, name)) for name in METRES]).encode()
    )
    for name in sorted(own):
        digest.update(name.encode())
        flat = own[name].detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_adapter(model: LLMMDEForDepthEstimation, folder: str | Path) -> LLMMDEForDepthEstimation:
    """
    Fold the peft adapter in `folder` into the model's weights and return the model.

    Raises FileNotFoundError when the folder is no adapter and ValueError when it is another
    model's: every name and shape must match and, where the adapter says for which weights it was
    made, the weights too.
    """
    folder = Path(folder)
    if (
        not (folder / 'adapter_config.json').is_file()
        or not (folder / 'adapter_model.safetensors').is_file()
    ):
        raise FileNotFoundError(
            f'no adapter in {folder}: expected adapter_config.json and adapter_model.safetensors'
        )
    _check_base(model, folder)
    weights = load_file(folder / 'adapter_model.safetensors')
    ranks = {rank for name, w in weights.items() if '.lora_A.' in name for rank in w.shape[:1]}
    config = read_adapter_config(folder, ranks=ranks)
    config.base_model_name_or_path = model.name_or_path  # else peft warns of another name
    try:
        with quiet_peft():
            adapted = get_peft_model(model, config)
    except ValueError as error:  # names no file
        raise ValueError(f'the adapter in {folder} is not of this model: {error}') from error
    wanted = {name: w.shape for name, w in get_peft_model_state_dict(adapted).items()}
    found = {name: w.shape for name, w in weights.items()}
    wrong = sorted(name for name in wanted.keys() | found if wanted.get(name) != found.get(name))
    if wrong:
        raise ValueError(
            f'the adapter in {folder} is not of this model: {len(wrong)} weights differ, '
            f'{wrong[0]} first'
        )
    set_peft_model_state_dict(adapted, weights)
    return adapted.merge_and_unload()


def _check_base(model: LLMMDEForDepthEstimation, folder: Path) -> None:
    """Refuse a model of the same shapes and other weights or metres: nonsense, silently."""
    with safe_open(folder / 'adapter_model.safetensors', framework='pt') as file:
        made_for = (file.metadata() or {}).get(BASE)  # peft itself does not say
    if made_for is not None and made_for != base_sha256(model):
        raise ValueError(
            f'the adapter in {folder} was made for another model than '
            f'{model.name_or_path or "this one"}, whose weights or metres differ: adapt this one '
            'again'
        )
