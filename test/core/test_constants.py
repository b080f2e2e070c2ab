"""What every image shares: computed once, never stale, and without effect on the outputs."""

from __future__ import annotations

import copy

from conftest import small_config
import pytest
import torch
from transformers import GPT2Config, PreTrainedTokenizerBase, Qwen2Config

from llm_mde_core import LLMMDEForDepthEstimation

LANGUAGE = {'vocab_size': 400, 'hidden_size': 24, 'num_hidden_layers': 2, 'num_attention_heads': 2}
CAUSAL = [
    GPT2Config(vocab_size=400, n_embd=24, n_layer=2, n_head=2),
    Qwen2Config(**LANGUAGE, intermediate_size=32, num_key_value_heads=1),
]


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))


def count_prototypes(
    model: LLMMDEForDepthEstimation, monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    calls: list[int] = []
    original = model.reprogramming.prototypes
    monkeypatch.setattr(
        model.reprogramming, 'prototypes', lambda words: calls.append(1) or original(words)
    )
    return calls


def test_constants_are_computed_once_in_inference(
    tiny_model: LLMMDEForDepthEstimation, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Defect 10: 47 GFLOP a frame for what never changes."""
    calls = count_prototypes(tiny_model, monkeypatch)
    plain = tiny_model(images).predicted_depth
    with torch.inference_mode():
        first, second = (tiny_model(images).predicted_depth for _ in range(2))
    assert len(calls) == 2  # once with gradients, once kept
    torch.testing.assert_close(first, plain)
    torch.testing.assert_close(second, plain)


@pytest.mark.parametrize(
    'change', ['step', 'words', 'load', 'cast', 'data', 'replaced', 'trained copy']
)
def test_constants_are_never_stale(tiny_model: LLMMDEForDepthEstimation, change: str) -> None:
    model = tiny_model
    with torch.no_grad():
        before = model.constants()
        if change == 'step':
            model.reprogramming.key.weight.add_(0.5)
        elif change == 'words':
            model.language.word_embeddings.mul_(torch.rand(400, 1))
        elif change == 'load':
            state = model.reprogramming.state_dict()
            model.reprogramming.load_state_dict({k: v + 0.1 for k, v in state.items()})
        elif change == 'cast':
            model.double()
        elif change == 'data':  # as peft merges LoRA
            model.reprogramming.key.weight.data = torch.randn(16, 24)
        elif change == 'replaced':  # as peft wraps what is trained in full
            model.train().reprogramming.key = torch.nn.Linear(24, 16)
            model.eval()
        elif change == 'trained copy':
            model = copy.deepcopy(model)
            model.reprogramming.key.weight.add_(0.5)
        after = model.constants()
    if change == 'cast':
        assert after.keys.dtype == torch.float64
    else:
        assert not torch.allclose(after.keys, before.keys)
    with torch.enable_grad():
        torch.testing.assert_close(after.keys, model.constants().keys)


def test_gradients_reach_what_makes_the_constants(
    tiny_model: LLMMDEForDepthEstimation, images: torch.Tensor
) -> None:
    with torch.no_grad():
        tiny_model(images)  # kept now
    tiny_model(images).predicted_depth.sum().backward()
    assert float(tiny_model.reprogramming.to_prototypes.weight.grad.abs().sum()) > 0.0


def test_reduced_precision_has_constants_of_its_own(tiny_model: LLMMDEForDepthEstimation) -> None:
    with torch.no_grad():
        exact = tiny_model.constants().keys
        with torch.autocast('cpu', torch.bfloat16):
            assert tiny_model.constants().keys.dtype == torch.bfloat16
        torch.testing.assert_close(tiny_model.constants().keys, exact, rtol=0, atol=0)


@pytest.mark.parametrize('language', CAUSAL, ids=lambda config: config.model_type)
def test_the_beginning_of_the_prompt_is_read_once(
    tokenizer: PreTrainedTokenizerBase, images: torch.Tensor, language: object
) -> None:
    """A causal model reads the first words without knowing what follows."""
    torch.manual_seed(0)
    config = small_config(language_config=language)
    model = LLMMDEForDepthEstimation.create(config, tokenizer).eval()
    with torch.no_grad():
        constants = model.constants()
        kept = model(images, constants=constants)
        plain = model(images, constants=constants._replace(prefix=None))
    assert constants.prefix is not None
    first_slot = min(config.prompt_layout['slot_starts'].values())
    assert [keys.shape[2] for keys, _ in constants.prefix] == [first_slot] * 2
    torch.testing.assert_close(kept.predicted_depth, plain.predicted_depth, rtol=1e-5, atol=1e-6)

    other = [(keys, values + 10.0) for keys, values in constants.prefix]
    with torch.no_grad():
        changed = model(images, constants=constants._replace(prefix=other))
    assert not torch.allclose(changed.predicted_depth, plain.predicted_depth)  # it is used


@pytest.mark.parametrize(
    'overrides', [{}, {'language_config': CAUSAL[0], 'prompt': 'shuffled'}], ids=['bert', 'mixed']
)
def test_no_prefix_where_the_first_words_are_not_the_same(
    tokenizer: PreTrainedTokenizerBase, overrides: dict[str, object]
) -> None:
    model = LLMMDEForDepthEstimation.create(small_config(**overrides), tokenizer).eval()
    with torch.no_grad():
        assert model.constants().prefix is None


def test_without_language_there_is_nothing_to_keep(tokenizer: PreTrainedTokenizerBase) -> None:
    model = LLMMDEForDepthEstimation.create(small_config(language='none'), tokenizer)
    assert model.constants() is None
