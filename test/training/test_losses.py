"""Losses: their formulas by hand, what they are blind to, and what unknown pixels must not do."""

from __future__ import annotations

from math import log, sqrt

import pytest
import torch

from llm_mde_core import LLMMDEOutput
from llm_mde_train.losses import (
    LossWeights,
    class_loss,
    gradient_loss,
    silog,
    spread_loss,
    total_loss,
)

ALL = torch.ones(1, 1, 2, dtype=torch.bool)
HALF = torch.tensor([[[True, False]]])


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_silog_is_the_formula_of_the_paper():
    error = torch.tensor([[[0.1, 0.3]]])
    by_hand = 10 * sqrt((0.01 + 0.09) / 2 - 0.85 * 0.2**2)
    assert silog(error, ALL).item() == pytest.approx(by_hand, rel=1e-5)


def test_silog_of_a_constant_factor_is_what_0_85_leaves_of_it():
    error = torch.full((2, 3, 4), log(1.5))
    valid = torch.ones(2, 3, 4, dtype=torch.bool)
    by_hand = 10 * sqrt(1 - 0.85) * log(1.5)
    assert silog(error, valid).item() == pytest.approx(by_hand, rel=1e-4)


def test_silog_counts_valid_pixels_only():
    assert silog(torch.tensor([[[0.2, 0.0]]]), HALF).item() == pytest.approx(
        silog(torch.tensor([[[0.2]]]), ALL[..., :1]).item()
    )


def test_gradient_loss_is_blind_to_scale_and_sees_bumps():
    valid = torch.ones(1, 16, 16, dtype=torch.bool)
    assert gradient_loss(torch.full((1, 16, 16), 0.7), valid).item() == 0.0
    bump = torch.zeros(1, 16, 16)
    bump[0, 4, 4] = 1.0
    assert gradient_loss(bump, valid).item() > 0.0


def test_gradient_loss_by_hand():
    error = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    valid = torch.ones(1, 2, 2, dtype=torch.bool)
    # Distance 1: rows differ by 0, columns by 1; longer distances find no pair.
    assert gradient_loss(error, valid).item() == pytest.approx(1.0 / 8.0)


def test_gradient_loss_takes_no_step_from_or_to_unknown():
    error = torch.zeros(1, 8, 8)
    error[0, 3, 3] = 5.0
    valid = torch.ones(1, 8, 8, dtype=torch.bool)
    valid[0, 3, 3] = False
    assert gradient_loss(error, valid).item() == 0.0


def test_spread_loss_is_least_at_the_true_laplace_scale():
    true_scale = 0.2
    error = torch.distributions.Laplace(0.0, true_scale).icdf(torch.linspace(0.001, 0.999, 999))
    error = error.view(1, 27, 37)
    valid = torch.ones_like(error, dtype=torch.bool)
    scales = torch.linspace(0.05, 0.6, 200)
    losses = [spread_loss(error, scale.log().expand_as(error), valid) for scale in scales]
    best = scales[torch.stack(losses).argmin()].item()
    assert best == pytest.approx(true_scale, abs=0.01)


def test_spread_loss_does_not_move_the_depth():
    error = noise(1, 4, 4).requires_grad_()
    log_spread = noise(1, 4, 4, seed=1).requires_grad_()
    spread_loss(error, log_spread, torch.ones(1, 4, 4, dtype=torch.bool)).backward()
    assert error.grad is None
    assert log_spread.grad.abs().sum() > 0.0


@pytest.mark.parametrize(
    ('canonical_m', 'word'), [(0.2, 0), (1.2, 0), (1.3, 1), (2.1, 2), (2.2, 3), (2.9, 6), (9.0, 6)]
)
def test_class_target_is_the_word_nearest_to_the_median(canonical_m, word):
    sure = 20.0 * torch.eye(7)
    depth = torch.full((1, 3, 3), canonical_m)
    depth[0, 0] = 100.0  # three of nine pixels do not move the median
    valid = torch.ones(1, 3, 3, dtype=torch.bool)
    losses = [class_loss(sure[i : i + 1], depth, valid).item() for i in range(7)]
    assert losses.index(min(losses)) == word
    assert min(losses) < 1e-3


def test_class_loss_skips_images_without_known_depth():
    similarity, depth = noise(2, 7), torch.full((2, 3, 3), 2.0)
    valid = torch.ones(2, 3, 3, dtype=torch.bool)
    valid[1] = False
    alone = class_loss(similarity[:1], depth[:1], valid[:1])
    torch.testing.assert_close(class_loss(similarity, depth, valid), alone)
    assert class_loss(similarity, depth, torch.zeros_like(valid)).item() == 0.0


def output(*, seed: int = 0, batch: int = 2) -> LLMMDEOutput:
    return LLMMDEOutput(
        predicted_depth=noise(batch, 16, 16, seed=seed).exp().requires_grad_(),
        log_spread=noise(batch, 16, 16, seed=seed + 1).requires_grad_(),
        class_similarity=noise(batch, 7, seed=seed + 2).requires_grad_(),
    )


def losses_of(depth_m: torch.Tensor, **fields: torch.Tensor | None):
    made = output(batch=len(depth_m))
    made = LLMMDEOutput(**(dict(made) | fields))
    ratio = torch.full((len(depth_m),), 1.5)
    return (*total_loss(made, depth_m=depth_m, canonical_ratio=ratio, weights=LossWeights()), made)


def test_total_is_the_weighted_sum_of_its_parts():
    total, parts, _ = losses_of(noise(2, 16, 16, seed=7).exp())
    by_hand = (
        0.1 * parts['silog']
        + parts['absolute']
        + 0.5 * parts['gradient']
        + 0.2 * parts['spread']
        + 0.05 * parts['depth_class']
    )
    torch.testing.assert_close(total, by_hand)


def test_absolute_error_is_of_logarithms():
    depth = torch.full((1, 16, 16), 2.0)
    _, parts, _ = losses_of(depth, predicted_depth=torch.full((1, 16, 16), 3.0))
    assert parts['absolute'].item() == pytest.approx(log(1.5), rel=1e-5)
    assert parts['gradient'].item() == 0.0


@pytest.mark.parametrize('unknown', [float('nan'), 0.0, -1.0, float('inf')])
def test_unknown_pixels_never_matter(unknown):
    depth = noise(2, 16, 16, seed=7).exp()
    depth[:, 4:9, 2:7] = unknown
    total, _, made = losses_of(depth)
    other = made.predicted_depth.detach().clone()
    other[:, 4:9, 2:7] = 7.0
    changed, _, _ = losses_of(depth, predicted_depth=other)
    torch.testing.assert_close(changed, total)
    total.backward()
    assert made.predicted_depth.grad.isfinite().all()
    assert made.predicted_depth.grad[:, 4:9, 2:7].abs().max() == 0.0
    assert made.log_spread.grad[:, 4:9, 2:7].abs().max() == 0.0


def test_nothing_known_is_no_loss_and_no_gradient():
    total, _, made = losses_of(torch.full((2, 16, 16), float('nan')))
    total.backward()
    assert total.item() == pytest.approx(0.0, abs=1e-3)  # the root of silog's smallest variance
    for name in ('predicted_depth', 'log_spread', 'class_similarity'):
        assert getattr(made, name).grad.abs().max() == 0.0


def test_class_words_mean_canonical_metres():
    # 1.5 m through a lens twice as long as the canonical one looks like 0.75 m: 'giant'.
    depth = torch.full((1, 16, 16), 1.5)
    made = LLMMDEOutput(**(dict(output(batch=1)) | {'class_similarity': 20.0 * torch.eye(7)[:1]}))
    ratio = torch.tensor([0.5])
    _, parts = total_loss(made, depth_m=depth, canonical_ratio=ratio, weights=LossWeights())
    assert parts['depth_class'].item() < 1e-3


def test_no_class_loss_without_a_language_model():
    _, parts, _ = losses_of(torch.ones(1, 16, 16), class_similarity=None)
    assert 'depth_class' not in parts
