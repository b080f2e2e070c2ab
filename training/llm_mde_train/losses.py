"""
What training minimises. All losses compare logarithms of depth, on pixels whose truth is known.

Several processes that each have a part of a batch compute the losses of the whole batch.

Shapes: B batch, H and W pixels. `error` is ln(prediction) − ln(truth), float32 (B, H, W), 0
where unknown; `valid` is bool (B, H, W).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import distributed
from torch.nn import functional

from llm_mde_core import LLMMDEOutput
from llm_mde_core.prompt import DEPTH_CLASSES

SILOG_LAMBDA = 0.85  # as in the paper
GRADIENT_SCALES = (1, 2, 4, 8)


@dataclass(frozen=True)
class LossWeights:
    """How much each part counts."""

    silog: float = 0.1
    absolute: float = 1.0
    gradient: float = 0.5
    spread: float = 0.2
    depth_class: float = 0.05


def total_loss(
    output: LLMMDEOutput,
    *,
    depth_m: torch.Tensor,
    canonical_ratio: torch.Tensor,
    weights: LossWeights,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """
    Return the weighted sum and its parts for truths (B, H, W), NaN where unknown.

    `canonical_ratio` (B,) is canonical over real focal length: it turns metres into what the
    network can see.
    """
    valid = torch.isfinite(depth_m) & (depth_m > 0.0)
    truth = torch.where(valid, depth_m, 1.0)
    error = torch.where(valid, output.predicted_depth.log() - truth.log(), 0.0)
    parts = {
        'silog': silog(error, valid),
        'absolute': _mean(error.abs(), valid),
        'gradient': gradient_loss(error, valid),
        'spread': spread_loss(error, output.log_spread, valid),
    }
    if output.class_similarity is not None:
        parts['depth_class'] = class_loss(
            output.class_similarity, truth * canonical_ratio.view(-1, 1, 1), valid
        )
    total = torch.stack([getattr(weights, name) * part for name, part in parts.items()]).sum()
    return total, parts


def silog(error: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Scale-invariant log loss over the batch: 10·sqrt(mean(d²) − 0.85·mean(d)²)."""
    variance = _mean(error.square(), valid) - SILOG_LAMBDA * _mean(error, valid).square()
    return 10.0 * torch.sqrt(variance.clamp(min=1e-8))


def gradient_loss(error: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean absolute change of the error between neighbours, at several distances."""
    losses = []
    for step in GRADIENT_SCALES:
        e, v = error[:, ::step, ::step], valid[:, ::step, ::step]
        for change, known in (
            (e[:, 1:] - e[:, :-1], v[:, 1:] & v[:, :-1]),
            (e[:, :, 1:] - e[:, :, :-1], v[:, :, 1:] & v[:, :, :-1]),
        ):
            losses.append(_mean(change.abs(), known))
    return torch.stack(losses).mean()


def spread_loss(
    error: torch.Tensor, log_spread: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """
    Negative log-likelihood of the error under the predicted Laplace spread.

    It teaches the spread alone: the depth feels nothing of it.
    """
    likelihood = error.detach().abs() * torch.exp(-log_spread) + log_spread
    return _mean(likelihood, valid)


def class_loss(
    similarity: torch.Tensor, canonical_m: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """
    Cross-entropy with the depth class nearest to the median canonical depth (B, H, W).

    Images without any known depth do not count.
    """
    medians = torch.where(valid, canonical_m, torch.nan).flatten(1).nanmedian(dim=1).values
    known = medians.isfinite()
    centres = torch.tensor(list(DEPTH_CLASSES.values()), device=medians.device)
    target = (medians.nan_to_num()[:, None] - centres).abs().argmin(dim=1)
    losses = functional.cross_entropy(similarity.float(), target, reduction='none')
    return _mean(losses, known)


def _mean(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Mean of the known values of all processes, 0 without any."""
    total, count = over_processes(torch.stack([(values * known).sum(), known.sum()]))
    return total / count.clamp(min=1)


def over_processes(sums: torch.Tensor) -> torch.Tensor:
    """
    Add up the sums of all processes.

    The gradient reaches only what this process brought in, so gradients are to be added up over
    processes, not averaged.
    """
    if not distributed.is_initialized():
        return sums
    everywhere = sums.detach().clone()
    distributed.all_reduce(everywhere)
    return sums + (everywhere - sums.detach())
