"""A config.json chooses the sizes of our network, and nothing that is fetched or run."""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
import shutil
from typing import Any

from conftest import small_config
import numpy as np
import pytest
import torch
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForDepthEstimation,
    PreTrainedTokenizerBase,
    ViTConfig,
)
from transformers.integrations import hub_kernels

from llm_mde_core import Camera, DepthEstimator, LLMMDEConfig, LLMMDEForDepthEstimation
from llm_mde_core.config import PRESETS
from llm_mde_core.config_file import BACKBONES
from llm_mde_core.model_files import CHECKPOINTS

KERNEL = 'kernels-community/flash-attn2'
SIZES = {
    'hidden_size': 32,
    'num_hidden_layers': 3,
    'num_attention_heads': 2,
    'intermediate_size': 48,
    'num_key_value_heads': 2,
    'head_dim': 16,
    'embedding_size': 32,
    'vocab_size': 400,
    'image_size': 64,
    'patch_size': 16,
}


def load(model: Path) -> DepthEstimator:
    return DepthEstimator.from_pretrained(model, device='cpu')


@pytest.fixture
def change(tiny_model_dir: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that sets something in a copy of a model's config.json."""
    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / 'model'))

    def set_(part: str, **settings: Any) -> Path:
        config = json.loads((folder / 'config.json').read_text())
        (config[part] if part else config).update(settings)
        (folder / 'config.json').write_text(json.dumps(config))
        return folder

    return set_


@pytest.mark.parametrize('part', ['', 'vision_config', 'language_config'])
@pytest.mark.parametrize(
    'settings',
    [
        {'attn_implementation': KERNEL},
        {'attn_implementation': {'': 'sdpa', 'language_config': KERNEL}},
        {'_attn_implementation': KERNEL},
        {'attn_implementation': 'flash_attention_2'},
        {'quantization_config': {'quant_method': 'fp8'}},
        {'auto_map': {'AutoModel': 'someone/code--modeling.Own'}},
        {'trust_remote_code': True},
        {'experts_implementation': KERNEL},
        {'hiden_size': 24},
    ],
    ids=lambda settings: '-'.join(settings),
)
@pytest.mark.parametrize('door', [load, AutoModelForDepthEstimation.from_pretrained])
def test_a_setting_that_could_choose_what_runs_is_refused(
    change: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    settings: dict[str, Any],
    door: Callable[[Path], object],
) -> None:
    fetched = []
    monkeypatch.setattr(hub_kernels, 'is_kernels_available', lambda: True)
    monkeypatch.setattr(hub_kernels, 'get_kernel', lambda *args, **_: fetched.append(args))
    with pytest.raises(ValueError, match=rf'config\.json sets {next(iter(settings))} to'):
        door(change(part, **settings))
    assert not fetched


def test_ways_of_attention_that_torch_has_are_fine(change: Callable[..., Path]) -> None:
    network = load(change('', attn_implementation='eager')).model
    assert network.vision.backbone.config._attn_implementation == 'eager'


@pytest.mark.parametrize('part', ['', 'vision_config', 'language_config'])
@pytest.mark.parametrize(
    'settings',
    [
        {'chunk_size_feed_forward': None},
        {'chunk_size_feed_forward': 7},
        {'return_dict': False},
        {'output_attentions': 'x'},
        {'output_hidden_states': 'x'},
    ],
    ids=str,
)
def test_how_a_backbone_computes_is_not_read(
    change: Callable[..., Path], part: str, settings: dict[str, Any]
) -> None:
    """They loaded, and the first image failed."""
    camera = Camera.from_hfov(width=64, height=48, hfov_deg=60.0)
    estimator = load(change(part, **settings))
    assert estimator.infer(np.zeros((48, 64, 3), np.uint8), camera).depth_m.shape == (48, 64)


@pytest.mark.parametrize('part', ['vision', 'language'])
@pytest.mark.parametrize('kind', ['timm_wrapper', 'mixtral', 'llm_mde', 'none', ['vit'], 3])
def test_a_backbone_of_another_type_is_refused(
    change: Callable[..., Path], part: str, kind: object
) -> None:
    with pytest.raises(ValueError, match=f'{part}_config is of type .*which is none of'):
        load(change(f'{part}_config', model_type=kind))


def backbone(kind: str) -> dict[str, Any]:
    """Return a small configuration: of the sizes, those that a kind has."""
    usual = CONFIG_MAPPING[kind]()
    known = {*usual.to_dict(), *usual.attribute_map}
    return {'model_type': kind} | {name: size for name, size in SIZES.items() if name in known}


@pytest.mark.parametrize(
    ('part', 'kind'), [(part, kind) for part in BACKBONES for kind in sorted(BACKBONES[part])]
)
def test_every_type_of_backbone_is_saved_and_read(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, part: str, kind: str
) -> None:
    torch.manual_seed(0)
    config = small_config(**{f'{part}_config': backbone(kind)})
    model = LLMMDEForDepthEstimation.create(config, tokenizer).eval()
    model.save_pretrained(tmp_path)
    loaded = LLMMDEForDepthEstimation.from_pretrained(tmp_path).eval()
    pixels = torch.rand(1, 3, 48, 64)
    with torch.inference_mode():
        assert torch.equal(loaded(pixels).predicted_depth, model(pixels).predicted_depth)


@pytest.mark.parametrize('preset', sorted(PRESETS))
def test_what_a_preset_saves_is_read(tmp_path: Path, preset: str) -> None:
    config = LLMMDEConfig.from_preset(preset)
    config.save_pretrained(tmp_path)
    assert LLMMDEConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_the_bundled_models_say_nothing_that_is_not_read() -> None:
    folders = sorted(CHECKPOINTS.iterdir())
    assert folders
    for folder in folders:
        said = json.loads((folder / 'config.json').read_text())
        kept = LLMMDEConfig.from_pretrained(folder).to_dict()
        assert said.keys() <= kept.keys()
        for part in ('vision_config', 'language_config'):
            assert said[part].keys() <= kept[part].keys()


def test_what_the_hub_says_beyond_the_architecture_is_not_kept(tmp_path: Path) -> None:
    """As configurations of older versions do: GPT-2's has task_specific_params."""
    more = {'task_specific_params': {'a': 1}, 'quantization_config': {'quant_method': 'fp8'}}
    (tmp_path / 'hub').mkdir()
    (tmp_path / 'hub' / 'config.json').write_text(json.dumps(ViTConfig().to_dict() | more))
    for number, config in enumerate(
        [
            LLMMDEConfig(vision_name=str(tmp_path / 'hub')),
            LLMMDEConfig(vision_config=AutoConfig.from_pretrained(tmp_path / 'hub')),
        ]
    ):
        config.save_pretrained(tmp_path / str(number))
        read = LLMMDEConfig.from_pretrained(tmp_path / str(number)).vision_config
        assert not hasattr(read, 'task_specific_params')
        assert read.to_dict().keys() == ViTConfig().to_dict().keys()
