"""Muon: orthogonal steps of a known size, AdamW for the rest, and faster learning of matrices."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from llm_mde_train.muon import Muon, matrices, orthogonal


@pytest.mark.parametrize('shape', [(24, 24), (16, 80), (80, 16)])
def test_singular_vectors_stay_and_all_singular_values_come_near_one(shape: tuple[int, int]):
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    values = torch.logspace(0, -1.5, min(shape))
    matrix = left @ torch.diag(values) @ right
    found = left.T @ orthogonal(1e4 * matrix) @ right.T
    diagonal = found.diagonal()
    assert 0.6 < float(diagonal.min()) <= float(diagonal.max()) < 1.3
    torch.testing.assert_close(found, torch.diag(diagonal), rtol=0, atol=1e-4)


def test_without_a_gradient_to_speak_of_nothing_happens():
    assert not orthogonal(torch.zeros(16, 20)).any()


def test_what_is_no_matrix_learns_as_with_adamw():
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(20, 32), nn.LayerNorm(32))
    theirs = copy.deepcopy(ours)
    chosen = list(matrices(ours))
    assert chosen == [ours[0].weight]
    others = [weight for weight in ours.parameters() if weight is not ours[0].weight]
    optimizers = (
        Muon([{'params': others}, {'params': chosen, 'matrices': True}], lr=0.01),
        torch.optim.AdamW(theirs.parameters(), lr=0.01),
    )
    for model, optimizer in zip((ours, theirs), optimizers, strict=True):
        (model(torch.ones(2, 20)) * torch.arange(32)).sum().backward()
        optimizer.step()
    torch.testing.assert_close(ours[1].weight, theirs[1].weight)
    torch.testing.assert_close(ours[0].bias, theirs[0].bias)
    assert not torch.allclose(ours[0].weight, theirs[0].weight)


def test_a_step_is_as_large_as_the_rate_says_and_a_convolution_is_a_matrix():
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 48, kernel_size=3, bias=False)
    before = layer.weight.detach().clone()
    optimizer = Muon([{'params': [layer.weight], 'matrices': True}], lr=0.01, weight_decay=0.0)
    layer.weight.grad = torch.randn_like(layer.weight)
    optimizer.step()
    change = (layer.weight.detach() - before).flatten(1)
    assert float(change.square().mean().sqrt()) == pytest.approx(0.2 * 0.01, rel=0.25)
    values = torch.linalg.svdvals(change)
    assert float(values.max() / values.min()) < 2.0


def test_weights_shrink_as_the_decay_says():
    weight = nn.Parameter(torch.eye(16))
    weight.grad = torch.zeros(16, 16)
    Muon([{'params': [weight], 'matrices': True}], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), 0.95 * torch.eye(16))


def test_matrices_are_neither_embeddings_nor_lists_of_vectors_nor_frozen():
    model = nn.Sequential(
        nn.Embedding(40, 20), nn.Linear(20, 20), nn.Conv2d(3, 8, 3), nn.Linear(20, 2)
    )
    assert list(matrices(model)) == [model[1].weight]
    assert not list(matrices(model.requires_grad_(False)))
