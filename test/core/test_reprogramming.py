"""Cross-modal reprogramming: attention to prototypes, with values of their own."""

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


def rewrite(
    reprogramming: Reprogramming, patches: torch.Tensor, words: torch.Tensor
) -> torch.Tensor:
    return reprogramming(patches, *reprogramming.keys_and_values(words))


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
        rewrite(reprogramming, patches, words), reprogramming.out(expected.transpose(0, 1))
    )


def test_values_are_not_the_keys(
    reprogramming: Reprogramming, words: torch.Tensor, patches: torch.Tensor
) -> None:
    """Defect 1: value = key leaves the value projection without effect and without gradient."""
    before = rewrite(reprogramming, patches, words)
    before.sum().backward()
    assert float(reprogramming.value.weight.grad.abs().sum()) > 0.0
    with torch.no_grad():
        reprogramming.value.weight.add_(1.0)
    assert not torch.allclose(rewrite(reprogramming, patches, words), before)


def test_for_the_ablation_the_keys_can_be_the_values(words: torch.Tensor) -> None:
    """Defect 1, on purpose."""
    reprogramming = Reprogramming(small_config(value_is_key=True))
    assert not any(name.startswith('value') for name, _ in reprogramming.named_parameters())
    keys, values = reprogramming.keys_and_values(words)
    assert keys.equal(values)


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
