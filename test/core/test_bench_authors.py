"""The reference does what the authors' code does, defects included."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, PreTrainedTokenizerBase, ViTConfig

from llm_mde_core.bench.authors import AuthorsLLMMDE, describe
from llm_mde_core.bench.references import tokenizer as bundled_tokenizer
from llm_mde_core.bench.roofline import count_work


@pytest.fixture
def reference(tokenizer: PreTrainedTokenizerBase) -> AuthorsLLMMDE:
    return small_reference(tokenizer, image_size=64)


def small_reference(
    tokenizer: PreTrainedTokenizerBase, *, image_size: int | tuple[int, int]
) -> AuthorsLLMMDE:
    torch.manual_seed(0)
    vision = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=image_size,
    )
    language = BertConfig(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
    )
    network = AuthorsLLMMDE(
        tokenizer,
        vision_config=vision,
        language_config=language,
        num_prototypes=10,
        heads=3,
        prompt_length=20,
    )
    return network.eval().requires_grad_(False)


PROMPT = torch.zeros(1, 20, 32)  # embedded


def image(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, 48, 80, generator=torch.Generator().manual_seed(seed))


def test_one_number_from_0_to_1_for_every_pixel(reference: AuthorsLLMMDE) -> None:
    output = reference(image())
    assert output.shape == (1, 1, 48, 80)
    assert 0 < output.min() < output.max() < 1


def test_its_input_can_have_any_sides(tokenizer: PreTrainedTokenizerBase) -> None:
    network = small_reference(tokenizer, image_size=(32, 64))
    assert network.input_size == (32, 64)
    assert network(image()).shape == (1, 1, 48, 80)
    assert network.to_channels.in_features == 20 + 2 * 4  # prompt and patches


def test_nothing_is_kept_from_frame_to_frame(reference: AuthorsLLMMDE) -> None:
    small = torch.rand(1, 3, 64, 64)
    before = reference.read(image(), small, PROMPT)
    # neither the prompt nor the vision encoder reads the embeddings: only the prototypes do
    reference.language.get_input_embeddings().weight.mul_(3.0)
    assert not torch.equal(before, reference.read(image(), small, PROMPT))


def test_values_are_computed_but_not_used(reference: AuthorsLLMMDE) -> None:
    before = reference(image())
    reference.attention.value.weight.mul_(5.0)
    assert torch.equal(before, reference(image()))


def test_the_last_patch_is_lost(reference: AuthorsLLMMDE) -> None:
    """Its own token is dropped; attention is switched off here so that no other one knows it."""
    for layer in reference.vision.modules():
        if isinstance(layer, torch.nn.Linear) and layer.out_features == layer.in_features:
            layer.weight.zero_()
    small = torch.rand(1, 3, 64, 64)
    changed = small.clone()
    changed[..., 48:, 48:] += 1.0
    full = image()
    assert torch.equal(reference.read(full, small, PROMPT), reference.read(full, changed, PROMPT))
    changed[..., :16, :16] += 1.0
    assert not torch.equal(
        reference.read(full, small, PROMPT), reference.read(full, changed, PROMPT)
    )


def test_the_sentence_is_written_for_every_image() -> None:
    small = torch.linspace(0, 1, 3 * 8 * 8).reshape(1, 3, 8, 8)
    assert 'x axis: minimum 0' in describe(small)
    assert 'x axis: minimum 7' in describe(small.flip(3))
    assert 'is giant' in describe(small)
    assert 'is far' in describe(torch.full((1, 3, 8, 8), 2.6))
    assert 'is unseen' in describe(torch.full((1, 3, 8, 8), 99.0))


def test_the_full_size_is_the_authors_size() -> None:
    """284 M parameters and about 236 GFLOP a frame, as was counted in their code."""
    with torch.device('meta'):
        network = AuthorsLLMMDE(bundled_tokenizer()).eval().requires_grad_(False)
        frame, small = torch.empty(1, 3, 480, 640), torch.empty(1, 3, 224, 224)
        prompt = torch.empty(1, 114, 768)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(284e6, rel=0.01)
    assert sum(p.numel() for p in network.head.parameters()) == pytest.approx(31.5e3, rel=0.01)
    work = count_work(lambda: network.read(frame, small, prompt))
    assert work.flop == pytest.approx(236e9, rel=0.03)
