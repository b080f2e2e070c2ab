"""LoRA through peft: only its factors and our parts train, folding it in changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
import sys

from conftest import small_config
from peft import PeftModel
import pytest
from safetensors.torch import load_file, save_file
import torch
from transformers import Dinov2Config, GPT2Config, PreTrainedTokenizerBase, Qwen2Config

from llm_mde_core import LLMMDEForDepthEstimation, add_lora, load_adapter
from llm_mde_core.adapter_config import RANK_PATTERNS
from llm_mde_core.lora import TRAINED_IN_FULL, count_trainable

ENDLESS = '(.|.)*!'  # as a regular expression, which peft takes it for
SIZES = {'hidden_size': 32, 'num_hidden_layers': 3, 'num_attention_heads': 2}
FAMILIES = {
    'vit-bert': {},
    'dinov2-gpt2': {
        'vision_config': Dinov2Config(**SIZES, image_size=64, patch_size=16),
        'language_config': GPT2Config(vocab_size=400, n_embd=24, n_layer=2, n_head=2),
    },
    'vit-qwen2': {
        'language_config': Qwen2Config(
            vocab_size=400,
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    },
}


def images() -> torch.Tensor:
    return torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))


def train_a_little(model: PeftModel) -> None:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.1)
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        model(pixel_values=images()).predicted_depth.log().square().mean().backward()
        optimizer.step()
    model.eval()


@pytest.mark.parametrize('family', FAMILIES)
def test_only_lora_and_our_parts_train(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, family: str
) -> None:
    """Defect 5: q, k and v of the language model replaced by random ones and trained in full."""
    torch.manual_seed(0)
    base = LLMMDEForDepthEstimation.create(small_config(**FAMILIES[family]), tokenizer).eval()
    untouched = base(images()).predicted_depth.detach()
    base.save_pretrained(tmp_path / 'base')
    counted = count_trainable(base)
    model = add_lora(base).eval()
    torch.testing.assert_close(
        model(pixel_values=images()).predicted_depth, untouched
    )  # LoRA starts at 0

    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trainable == counted

    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train_a_little(model)
    changed = {
        name for name, p in model.named_parameters() if not torch.equal(p.detach(), before[name])
    }
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert not changed & frozen
    assert any('vision' in name and 'lora_B' in name for name in changed)
    assert any('language' in name and 'lora_B' in name for name in changed)
    for name in changed:
        assert 'lora_' in name or any(f'.{part}.' in name for part in TRAINED_IN_FULL), name

    # Saved as a peft folder, loaded onto the base, folded in: the same output (defect 6).
    model.save_pretrained(tmp_path / 'adapter')
    expected = model(pixel_values=images()).predicted_depth
    assert not torch.allclose(expected, untouched)
    loaded = load_adapter(
        LLMMDEForDepthEstimation.from_pretrained(tmp_path / 'base'), tmp_path / 'adapter'
    ).eval()
    assert isinstance(loaded, LLMMDEForDepthEstimation)
    torch.testing.assert_close(loaded(images()).predicted_depth, expected, rtol=1e-4, atol=1e-5)


def test_ranks_come_from_the_configuration(tokenizer: PreTrainedTokenizerBase) -> None:
    config = small_config(lora_vision_rank=5, lora_language_rank=3)
    model = add_lora(LLMMDEForDepthEstimation.create(config, tokenizer))
    ranks = {
        'vision' if 'vision' in name else 'language': p.shape[0]
        for name, p in model.named_parameters()
        if 'lora_A' in name
    }
    assert ranks == {'vision': 5, 'language': 3}


@pytest.mark.filterwarnings('error::FutureWarning')
def test_peft_warns_of_nothing(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    model = LLMMDEForDepthEstimation.create(small_config(), tokenizer)
    model.save_pretrained(tmp_path / 'base')
    add_lora(model).save_pretrained(tmp_path / 'adapter')
    base = LLMMDEForDepthEstimation.from_pretrained(tmp_path / 'base')
    load_adapter(base, tmp_path / 'adapter')


def test_no_lora_leaves_both_backbones_frozen(tokenizer: PreTrainedTokenizerBase) -> None:
    config = small_config(lora_vision_rank=0, lora_language_rank=0)
    model = add_lora(LLMMDEForDepthEstimation.create(config, tokenizer))
    assert not any('lora' in name for name, _ in model.named_parameters())
    trained = {name.split('.')[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == set(TRAINED_IN_FULL)


def test_lora_on_one_backbone_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    config = small_config(lora_vision_rank=0, lora_language_rank=4)
    model = add_lora(LLMMDEForDepthEstimation.create(config, tokenizer))
    with_lora = {name for name, _ in model.named_parameters() if 'lora_A' in name}
    assert with_lora
    assert all('.language.' in name for name in with_lora)


def test_nothing_to_train_is_an_error(tokenizer: PreTrainedTokenizerBase) -> None:
    config = small_config(lora_vision_rank=0, lora_language_rank=0)
    with pytest.raises(ValueError, match='nothing to train'):
        add_lora(LLMMDEForDepthEstimation.create(config, tokenizer), train_in_full=())


@pytest.mark.parametrize('change', ['more layers', 'fewer layers', 'wider'])
def test_the_adapter_of_another_model_is_refused(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, change: str
) -> None:
    sizes = {'hidden_size': 32, 'num_hidden_layers': 3, 'num_attention_heads': 2}
    other = sizes | {'wider': {'hidden_size': 48}}.get(
        change, {'num_hidden_layers': 4 if change == 'more layers' else 3}
    )
    levels = (1, 2)

    def make(fields: dict[str, int]) -> LLMMDEForDepthEstimation:
        vision = Dinov2Config(**fields, image_size=64, patch_size=16)
        config = small_config(vision_config=vision, vision_levels=levels)
        return LLMMDEForDepthEstimation.create(config, tokenizer)

    first = sizes | ({'num_hidden_layers': 4} if change == 'fewer layers' else {})
    add_lora(make(first)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='not of this model'):
        load_adapter(make(other), tmp_path)


def test_a_folder_without_an_adapter_is_refused(
    tiny_model: LLMMDEForDepthEstimation, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r'no adapter in .*adapter_config\.json'):
        load_adapter(tiny_model, tmp_path)


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'megatron_config': {'a': 1}, 'megatron_core': 'antigravity'}, 'sets megatron_config'),
        ({'peft_type': 'IA3'}, "of kind 'IA3'"),
        ({'r': 10**9}, 'has rank 1000000000'),
        ({'r': 16}, 'has rank 16, which its weights do not have'),
        ({'rank_pattern': {RANK_PATTERNS['vision']: 10**9}}, 'has rank 1000000000'),
        ({'rank_pattern': {ENDLESS: 2}}, 'sets rank_pattern'),
        ({'alpha_pattern': {ENDLESS: 2}}, 'sets alpha_pattern'),
        ({'target_modules': ENDLESS}, 'sets target_modules'),
        ({'target_modules': ['query'] * 10**5}, 'sets target_modules'),
        ({'modules_to_save': [ENDLESS]}, 'sets modules_to_save'),
        ({'r': 'x'}, "sets r to 'x'"),
        ({'lora_alpha': float('inf')}, 'sets lora_alpha to inf'),
        ({'target_modules': 3}, 'sets target_modules to 3'),
        ({'modules_to_save': [[]]}, 'sets modules_to_save'),
    ],
)
def test_settings_that_no_adapter_of_ours_has_are_refused(
    tiny_model: LLMMDEForDepthEstimation, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    add_lora(tiny_model).save_pretrained(tmp_path)
    path = tmp_path / 'adapter_config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    before = set(sys.modules)
    with pytest.raises(ValueError, match=reason):
        load_adapter(tiny_model, tmp_path)
    assert 'antigravity' not in set(sys.modules) - before


def test_a_rank_that_the_weights_have_is_bounded(
    tiny_model: LLMMDEForDepthEstimation, tmp_path: Path
) -> None:
    """A weight without any number costs nothing in a file, and may have any rank."""
    add_lora(tiny_model).save_pretrained(tmp_path)
    weights = load_file(tmp_path / 'adapter_model.safetensors')
    weights['base_model.model.x.lora_A.weight'] = torch.empty(10**9, 0)
    save_file(weights, tmp_path / 'adapter_model.safetensors')
    path = tmp_path / 'adapter_config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {'r': 10**9}))
    with pytest.raises(ValueError, match='has rank 1000000000'):
        load_adapter(tiny_model, tmp_path)
