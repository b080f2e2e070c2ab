"""An optimiser that learns matrices faster from random weights than AdamW does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

MOMENTUM = 0.95
LEAST_SIDE = 16  # of a matrix: less is a list of vectors
# Quintic iteration that brings singular values near 1, not to it, in few steps.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
LIKE_ADAMW = 0.2  # root mean square of a step of AdamW, in learning rates


class Muon(torch.optim.AdamW):
    """
    AdamW, and for groups with `matrices` set momentum made orthogonal (Jordan et al., 2024).

    Every direction of such a matrix, or of a convolution's kernels one below the other, learns
    at one speed. Steps are as large as AdamW's would be (Liu et al., arXiv 2502.16982). torch's
    own Muon takes matrices alone and computes in bfloat16, twenty times slower on most CPUs.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Let the weights follow their gradients."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group.get('matrices')]
        super().step(closure)
        self.param_groups = groups
        for group in groups:
            for weight in group['params'] if group.get('matrices') else ():
                if weight.grad is not None:
                    self._follow(weight, rate=group['lr'], decay=group['weight_decay'])

    def _follow(self, weight: torch.Tensor, *, rate: float, decay: float) -> None:
        state: dict[str, Any] = self.state[weight]
        if not state:  # under AdamW's names, which it looks for
            state |= {'step': torch.tensor(0.0), 'exp_avg': torch.zeros_like(weight)}
        momentum = state['exp_avg']
        momentum.lerp_(weight.grad, 1.0 - MOMENTUM)
        ahead = weight.grad.lerp(momentum, MOMENTUM).flatten(1)
        step = orthogonal(ahead) * LIKE_ADAMW * max(ahead.shape) ** 0.5
        weight.mul_(1.0 - rate * decay).add_(step.view_as(weight), alpha=-rate)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Return a matrix (M, N) of the same singular vectors and singular values of 0.7 to 1.2."""
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    linear, cubic, quintic = COEFFICIENTS
    matrix = matrix / matrix.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        square = matrix @ matrix.T
        factor = torch.addmm(square, square, square, beta=cubic, alpha=quintic)
        matrix = torch.addmm(matrix, factor, matrix, beta=linear)
    return matrix


def matrices(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the weights that map vectors to vectors and learn: of linear maps, convolutions."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | Conv1D):
            weight = module.weight
            if weight.requires_grad and min(weight.flatten(1).shape) >= LEAST_SIDE:
                yield weight
