"""Cross-modal reprogramming: separate values, constants computed once and never stale."""

from __future__ import annotations

from conftest import small_config
import pytest
import torch
from torch.nn import functional

from llm_mde_core.reprogramming import Bottleneck, Reprogramming


@pytest.fixture
def words() -> torch.Tensor:
    return torch.randn(400, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def patches() -> torch.Tensor:
    return torch.randn(2, 12, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def reprogramming() -> Reprogramming:
    torch.manual_seed(0)
    return Reprogramming(small_config()).eval()


def count_prototypes(reprogramming: Reprogramming, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    original = reprogramming.prototypes
    monkeypatch.setattr(
        reprogramming, 'prototypes', lambda words: calls.append(1) or original(words)
    )
    return calls


def test_it_is_multi_head_attention_over_prototypes(
    reprogramming: Reprogramming, words: torch.Tensor, patches: torch.Tensor
) -> None:
    weight, bias = reprogramming.to_prototypes.weight, reprogramming.to_prototypes.bias
    prototypes = reprogramming.norm((weight @ words) + bias[:, None])
    expected, _ = functional.multi_head_attention_forward(
        *(
            reprogramming.query(patches).transpose(0, 1),
            reprogramming.key(prototypes)[:, None].expand(-1, 2, -1),
            reprogramming.value(prototypes)[:, None].expand(-1, 2, -1),
        ),
        embed_dim_to_check=16,
        num_heads=2,
        in_proj_weight=torch.eye(16).repeat(3, 1),
        in_proj_bias=None,
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=torch.eye(16),
        out_proj_bias=torch.zeros(16),
    )
    torch.testing.assert_close(
        reprogramming(patches, words), reprogramming.out(expected.transpose(0, 1))
    )


def test_values_are_not_the_keys(
    reprogramming: Reprogramming, words: torch.Tensor, patches: torch.Tensor
) -> None:
    """Defect 1: value = key leaves the value projection without effect and without gradient."""
    before = reprogramming(patches, words)
    before.sum().backward()
    assert float(reprogramming.value.weight.grad.abs().sum()) > 0.0
    with torch.no_grad():
        reprogramming.value.weight.add_(1.0)
    assert not torch.allclose(reprogramming(patches, words), before)


def test_for_the_ablation_the_keys_can_be_the_values(words: torch.Tensor) -> None:
    """Defect 1, on purpose."""
    reprogramming = Reprogramming(small_config(value_is_key=True))
    assert not any(name.startswith('value') for name, _ in reprogramming.named_parameters())
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            keys, values = reprogramming.keys_and_values(words)
        assert keys.equal(values)


def test_constants_are_computed_once_in_inference(
    reprogramming: Reprogramming,
    words: torch.Tensor,
    patches: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Defect 10: 47 GFLOP a frame for what never changes."""
    calls = count_prototypes(reprogramming, monkeypatch)
    plain = reprogramming(patches, words)
    with torch.inference_mode():
        first, second = (reprogramming(patches, words) for _ in range(2))
    assert len(calls) == 2  # once with gradients, once kept
    torch.testing.assert_close(first, plain)
    torch.testing.assert_close(second, plain)


@pytest.mark.parametrize('change', ['step', 'load', 'words', 'cast'])
def test_constants_are_never_stale(
    reprogramming: Reprogramming, words: torch.Tensor, patches: torch.Tensor, change: str
) -> None:
    with torch.no_grad():
        before = reprogramming(patches, words)
        if change == 'step':
            reprogramming.key.weight.add_(0.5)
        elif change == 'load':
            reprogramming.load_state_dict(
                {k: v + 0.1 for k, v in reprogramming.state_dict().items()}
            )
        elif change == 'words':
            words.add_(1.0)
        else:
            reprogramming.double()
            words, patches = words.double(), patches.double()
        after = reprogramming(patches, words)
    if change == 'cast':
        assert after.dtype == torch.float64
    else:
        assert not torch.allclose(after, before)
    with torch.enable_grad():
        torch.testing.assert_close(after, reprogramming(patches, words))


def test_bottleneck_is_a_residual_through_a_narrow_middle() -> None:
    torch.manual_seed(0)
    bottleneck = Bottleneck(dim=8, narrow_dim=2)
    tokens = torch.randn(1, 5, 8)
    change = (bottleneck(tokens) - tokens - bottleneck.up.bias)[0]
    assert int(torch.linalg.matrix_rank(change)) == 2
    with torch.no_grad():
        bottleneck.up.weight.zero_()
        bottleneck.up.bias.zero_()
    torch.testing.assert_close(bottleneck(tokens), tokens)
