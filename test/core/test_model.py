"""The network: the original's defects stay absent; every backbone and ablation runs."""

from __future__ import annotations

import json
import math
from pathlib import Path

from conftest import small_config
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForDepthEstimation,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerBase,
    Qwen2Config,
    ViTConfig,
)

from llm_mde_core import LLMMDEConfig, LLMMDEForDepthEstimation

VISION = {'hidden_size': 32, 'num_hidden_layers': 3, 'num_attention_heads': 2}
LANGUAGE = {'vocab_size': 400, 'hidden_size': 24, 'num_hidden_layers': 2, 'num_attention_heads': 2}
GPT2 = GPT2Config(vocab_size=400, n_embd=24, n_layer=2, n_head=2)


def build(tokenizer: PreTrainedTokenizerBase, **overrides: object) -> LLMMDEForDepthEstimation:
    torch.manual_seed(0)
    return LLMMDEForDepthEstimation.create(small_config(**overrides), tokenizer).eval()


def images(batch: int = 2, height: int = 48, width: int = 64) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    'vision',
    [
        ViTConfig(**VISION, intermediate_size=48, image_size=64, patch_size=16),
        Dinov2Config(**VISION, image_size=64, patch_size=16),
        Dinov2WithRegistersConfig(**VISION, image_size=64, patch_size=16, num_register_tokens=4),
    ],
    ids=lambda config: config.model_type,
)
def test_every_vision_family(tokenizer: PreTrainedTokenizerBase, vision: object) -> None:
    model = build(tokenizer, vision_config=vision)
    output = model(images())
    assert output.predicted_depth.shape == (2, 48, 64)
    patches, levels = model.vision(images())
    assert patches.shape == (2, 12, 32)
    assert [tuple(level.shape) for level in levels] == [(2, 32, 3, 4)] * 2


@pytest.mark.parametrize(
    'language',
    [
        GPT2,
        LlamaConfig(**LANGUAGE, intermediate_size=32, num_key_value_heads=1),
        Qwen2Config(**LANGUAGE, intermediate_size=32, num_key_value_heads=1),
    ],
    ids=lambda config: config.model_type,
)
def test_every_language_family(tokenizer: PreTrainedTokenizerBase, language: object) -> None:
    model = build(tokenizer, language_config=language)
    together = model(images()).predicted_depth
    alone = torch.cat([model(image[None]).predicted_depth for image in images()])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_stem_feeds_the_transformer_and_the_head(tokenizer: PreTrainedTokenizerBase) -> None:
    vision = ViTConfig(**VISION, intermediate_size=48, num_channels=32, image_size=4, patch_size=1)
    model = build(tokenizer, vision_config=vision, stem_channels=(8, 16, 24, 32))
    assert model.config.patch_px == 16
    patches, levels = model.vision(images())
    assert patches.shape == (2, 12, 32)
    assert [tuple(level.shape[1:]) for level in levels] == [(16, 12, 16), (24, 6, 8)]


def test_depth_is_metres_within_the_configured_range(tokenizer: PreTrainedTokenizerBase) -> None:
    """Defect 2: a sigmoid in (0, 1) compared with metres."""
    model = build(tokenizer, max_depth_m=7.0)
    with torch.no_grad():
        model.head.out[-1].bias.fill_(50.0)
    depth = model(images()).predicted_depth
    torch.testing.assert_close(depth, torch.full_like(depth, 7.0), rtol=1e-4, atol=0)
    # A longer lens would put it further away, but never beyond the range.
    with torch.no_grad():
        assert (
            float(model(images(), focal_px=torch.tensor([300.0, 300.0])).predicted_depth.max())
            <= 7.0
        )


def test_a_bright_patch_is_found_where_it_is(tokenizer: PreTrainedTokenizerBase) -> None:
    """Defect 4: CLS kept and the last patch dropped, every token off the grid by one."""
    model = build(tokenizer)
    plain = torch.full((1, 3, 64, 64), 0.5)
    for row, column in ((0, 0), (1, 2), (3, 3)):
        marked = plain.clone()
        marked[:, :, row * 16 : row * 16 + 16, column * 16 : column * 16 + 16] = 1.0
        tokens, _ = model.vision(marked)
        before, _ = model.vision(plain)
        change = (tokens - before).norm(dim=2).view(4, 4)
        assert divmod(int(change.argmax()), 4) == (row, column)


@pytest.mark.parametrize(('height', 'width'), [(16, 16), (48, 160), (160, 48), (224, 224)])
def test_any_size_that_the_patch_divides(
    tokenizer: PreTrainedTokenizerBase, height: int, width: int
) -> None:
    """Defect 7: exactly 310 tokens or an error."""
    depth = build(tokenizer)(images(1, height, width)).predicted_depth
    assert depth.shape == (1, height, width)
    assert torch.isfinite(depth).all()


def test_more_tokens_than_the_language_model_has_positions(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    model = build(tokenizer)
    assert model.language.max_positions == 512
    tokens = 40 * 20
    mask = torch.ones(1, 60, dtype=torch.long)
    positions = model.language._positions(mask, image_tokens=tokens)[0]
    assert int(positions.max()) < 512
    assert (positions.diff() >= 0).all()
    assert model(images(1, 320, 640)).predicted_depth.shape == (1, 320, 640)


def test_any_prompt_length(tokenizer: PreTrainedTokenizerBase) -> None:
    short = build(tokenizer, prompt_dataset='rooms')
    long = build(tokenizer, prompt_dataset='rooms ' * 30)
    assert long.config.prompt_layout['length'] > short.config.prompt_layout['length'] + 25
    for model in (short, long):
        assert model(images()).predicted_depth.shape == (2, 48, 64)


def test_a_prompt_that_leaves_no_room_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    model = build(tokenizer, prompt_dataset='rooms ' * 300)
    with pytest.raises(ValueError, match='shorten prompt_dataset'):
        model(images())


def test_a_size_that_the_patch_does_not_divide_is_refused(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    with pytest.raises(ValueError, match='multiples of 16 pixels, not 50 x 64'):
        build(tokenizer)(images(1, 50, 64))


def test_a_batch_of_two_equals_two_batches_of_one(tokenizer: PreTrainedTokenizerBase) -> None:
    """Defect 9: padding attended, the prompt shared by the batch."""
    model = build(tokenizer)
    pixels = images()
    pixels[1] *= 0.2  # another prompt, with other unused places
    together = model(pixels)
    alone = [model(image[None]) for image in pixels]
    assert not torch.equal(together.prompt_ids[0], together.prompt_ids[1])
    torch.testing.assert_close(
        together.predicted_depth,
        torch.cat([one.predicted_depth for one in alone]),
        rtol=1e-4,
        atol=1e-5,
    )


def test_masked_places_of_the_prompt_change_nothing(tokenizer: PreTrainedTokenizerBase) -> None:
    """Defect 9, from the other side: what stands in an unused place must not matter."""
    model = build(tokenizer)
    prompt = torch.randn(1, 8, 24)
    mask = torch.tensor([[1, 1, 1, 0, 0, 1, 1, 1]])
    tokens = torch.randn(1, 12, 24)
    other = prompt.clone()
    other[:, 3:5] = 100.0
    torch.testing.assert_close(
        model.language(prompt, mask, tokens), model.language(other, mask, tokens)
    )
    used = prompt[:, mask[0].bool()]
    torch.testing.assert_close(
        model.language(prompt, mask, tokens),
        model.language(used, torch.ones(1, 6, dtype=torch.long), tokens),
        rtol=1e-4,
        atol=1e-5,
    )


def test_metres_follow_the_focal_length(tokenizer: PreTrainedTokenizerBase) -> None:
    """Defect 14: the same pixels through a lens twice as long are twice as far away."""
    model = build(tokenizer, min_depth_m=0.5, max_depth_m=50.0)
    model.requires_grad_(False)
    near = model(images(), focal_px=torch.tensor([30.0, 60.0])).predicted_depth
    far = model(images(), focal_px=torch.tensor([60.0, 120.0])).predicted_depth
    assert float(far.max()) < 50.0
    torch.testing.assert_close(far, 2.0 * near)
    torch.testing.assert_close(
        model(images()).predicted_depth[1], near[1]
    )  # None is the canonical focal length


@pytest.mark.parametrize(
    'overrides', [{}, {'prompt': 'fixed'}, {'prompt': 'shuffled'}, {'language': 'none'}]
)
def test_a_saved_model_says_the_same_when_loaded(
    tokenizer: PreTrainedTokenizerBase, tmp_path: object, overrides: dict[str, str]
) -> None:
    """Defect 6: reloading changes the output."""
    model = build(tokenizer, **overrides)
    model.save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {'config.json', 'model.safetensors', 'preprocessor_config.json'} <= names
    assert ('tokenizer.json' in names) == (model.config.language != 'none')
    loaded = AutoModelForDepthEstimation.from_pretrained(tmp_path).eval()
    assert isinstance(loaded, LLMMDEForDepthEstimation)
    torch.testing.assert_close(
        loaded(images()).predicted_depth, model(images()).predicted_depth, rtol=0, atol=0
    )


def test_weights_that_do_not_fit_are_refused(
    tokenizer: PreTrainedTokenizerBase, tmp_path: object
) -> None:
    model = build(tokenizer)
    state = model.state_dict()
    del state['head.from_tokens.weight']
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ValueError, match=r'missing_keys.*head\.from_tokens\.weight'):
        LLMMDEForDepthEstimation.from_pretrained(tmp_path)


def test_weights_of_another_normalisation_are_refused(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    build(tokenizer).save_pretrained(tmp_path)
    config = json.loads((tmp_path / 'config.json').read_text())
    config['image_std'] = [0.5, 0.5, 0.25]
    (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r'image_std.*0\.5\] with the weights.*0\.25\] in config'):
        LLMMDEForDepthEstimation.from_pretrained(tmp_path)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('said', ['float16', 'float32'])
def test_weights_are_float32_whatever_they_were_saved_as(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, dtype: torch.dtype, said: str
) -> None:
    model = build(tokenizer).to(dtype)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / 'config.json').read_text())
    for settings in (config, config['vision_config'], config['language_config']):
        settings['dtype'] = said
    (tmp_path / 'config.json').write_text(json.dumps(config))
    loaded = AutoModelForDepthEstimation.from_pretrained(tmp_path).eval()
    numbers = [*loaded.parameters(), *(b for b in loaded.buffers() if b.is_floating_point())]
    assert {number.dtype for number in numbers} == {torch.float32}
    torch.testing.assert_close(
        loaded(images()).predicted_depth, model.float()(images()).predicted_depth
    )


@pytest.mark.parametrize('settings', [{'dtype': 'bfloat16'}, {'return_dict': False}])
def test_what_a_backbone_says_of_dtype_and_outputs_has_no_effect(
    tokenizer: PreTrainedTokenizerBase, settings: dict[str, object]
) -> None:
    """As on the hub, where most language models are bfloat16."""
    usual = small_config()
    other = {
        part: getattr(usual, part).to_dict() | settings
        for part in ('vision_config', 'language_config')
    }
    model = build(tokenizer, **other)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model(images()).predicted_depth, build(tokenizer)(images()).predicted_depth)


def test_a_name_alone_brings_configuration_and_weights(
    tokenizer: PreTrainedTokenizerBase, tmp_path: object
) -> None:
    torch.manual_seed(7)
    dinov2 = AutoModel.from_config(Dinov2Config(**VISION, image_size=64, patch_size=16))
    dinov2.save_pretrained(tmp_path)
    model = build(tokenizer, vision_config=None, vision_name=str(tmp_path))
    assert model.config.vision_config.model_type == 'dinov2'
    expected = dinov2.state_dict()
    assert all(torch.equal(expected[k], v) for k, v in model.vision.backbone.state_dict().items())


def test_a_mistyped_argument_is_an_error(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(TypeError, match='focal'):
        build(tokenizer)(images(), focal=torch.tensor([1.0, 1.0]))


def test_the_head_uses_tokens_and_every_level_where_they_are(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Defect 12: all spatial detail from a full-resolution skip of three channels."""
    head = build(tokenizer).head.requires_grad_(False)
    for block in head.blocks:  # trained: a new block is only its shortcut
        block.second.weight.normal_(std=0.02)
    rows, columns = 4, 6
    tokens = torch.randn(1, rows * columns, 24)
    levels = [torch.randn(1, 32, rows, columns) for _ in range(2)]
    before = head(tokens, levels)[0][0, 0].log()
    for changed in range(3):
        other_tokens, other_levels = tokens.clone(), [level.clone() for level in levels]
        if changed == 2:
            other_tokens[:, 2 * columns + 4] = torch.randn(24)
        else:
            other_levels[changed][:, :, 2, 4] = torch.randn(32)
        change = (head(other_tokens, other_levels)[0][0, 0].log() - before).abs()
        cells = change.view(rows, 4, columns, 4).mean(dim=(1, 3))
        assert divmod(int(cells.argmax()), columns) == (2, 4)


def test_without_a_language_model_nothing_of_it_is_left(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    model = build(tokenizer, language='none')
    assert {name for name, _ in model.named_children()} == {'vision', 'bottleneck', 'head'}
    assert model(images()).prompt_ids is None


def test_a_random_language_model_takes_no_pretrained_weights(
    tokenizer: PreTrainedTokenizerBase, tmp_path: object
) -> None:
    pretrained = build(tokenizer).language.backbone
    with torch.no_grad():
        for weight in pretrained.parameters():
            weight.add_(0.01)
    pretrained.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with_weights = build(None, language_name=str(tmp_path)).language.backbone.state_dict()
    without = build(
        None, language_name=str(tmp_path), language='random'
    ).language.backbone.state_dict()
    expected = pretrained.state_dict()
    key = 'encoder.layer.0.output.dense.weight'
    assert all(torch.equal(with_weights[name], expected[name]) for name in expected)
    assert not torch.equal(without[key], expected[key])


@pytest.mark.parametrize('preset', ['paper', 'small', 'tiny'])
def test_presets_have_the_published_parts(preset: str) -> None:
    config = LLMMDEConfig.from_preset(preset)
    expected = {
        'paper': ('vit', 768, 16, 'bert', 768, 1000),
        'small': ('dinov2', 384, 14, 'gpt2', 768, 1000),
        'tiny': ('vit', 192, 16, 'gpt2', 192, 128),
    }[preset]
    vision, language = config.vision_config, config.language_config
    assert expected == (
        vision.model_type,
        vision.hidden_size,
        config.patch_px,
        language.model_type,
        language.hidden_size,
        config.num_prototypes,
    )


def test_the_paper_preset_runs_at_full_size(tokenizer: PreTrainedTokenizerBase) -> None:
    config = LLMMDEConfig.from_preset('paper', vision_name='', language_name='')
    model = LLMMDEForDepthEstimation.create(config, tokenizer).eval()
    with torch.inference_mode():
        output = model(images(1, 160, 224))
    assert output.predicted_depth.shape == (1, 160, 224)
    assert model.reprogramming.to_prototypes.weight.shape == (1000, 30522)


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        ({'language': 'maybe'}, "language must be one of .* not 'maybe'"),
        ({'prompt': 'loud'}, "prompt must be one of .* not 'loud'"),
        ({'min_depth_m': 5.0, 'max_depth_m': 2.0}, 'not 5.0 to 2.0'),
        ({'max_depth_m': math.inf}, 'not 0.1 to inf'),
        ({'canonical_focal_px': 0.0}, 'canonical_focal_px must be positive'),
        ({'canonical_focal_px': math.nan}, 'canonical_focal_px must be positive, not nan'),
        ({'image_size': 0}, 'image_size must be a whole number from 1 to 8192, not 0'),
        ({'image_mean': (0.5, 0.5)}, 'image_mean must be three numbers'),
        ({'image_std': (0.5, 0.5, 0.0)}, 'image_std must be three positive numbers'),
        ({'spread_factor': 0.0}, 'spread_factor must be positive, not 0.0'),
        ({'spread_factor': math.nan}, 'spread_factor must be positive, not nan'),
        ({'vision_levels': (1, 2, 3)}, 'two layers'),
        ({'vision_levels': (1, 9)}, 'must lie in 1 to 3'),
        ({'stem_channels': (8, 16, 32)}, 'patch_size 1, not 16'),
        ({'vision_config': {'hidden_size': 3}}, 'model_type'),
    ],
)
def test_configurations_that_cannot_work_are_refused(
    overrides: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        small_config(**overrides)


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'huge'.*'paper', 'small', 'tiny'"):
        LLMMDEConfig.from_preset('huge')
