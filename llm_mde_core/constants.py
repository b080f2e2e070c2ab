"""
What depends on the weights and not on the image: computed once and kept until a weight changes.

Shapes: C depth classes, D width of the language model, K prototypes, P tokens before the prompt's
first slot, d width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch

Prefix: TypeAlias = list[tuple[torch.Tensor, torch.Tensor]]


class Constants(NamedTuple):
    """What every image shares."""

    keys: torch.Tensor  # (1, heads, K, d), of the text prototypes
    values: torch.Tensor  # (1, heads, K, d)
    class_directions: torch.Tensor  # (C, D), unit vectors: what each depth-class word means
    # Keys and values (1, heads, P, d) of each layer for the prompt's first words; None where the
    # language model reads them in the light of what follows, or a gradient is wanted.
    prefix: Prefix | None


class KeptConstants:
    """
    Constants, and the state of the weights that they were computed from.

    Noticed are weights that are stepped, copied into, or loaded. Whoever moves, casts or replaces
    them calls `drop`.
    """

    def __init__(self) -> None:
        self._weights: list[torch.Tensor] = []
        self._state: list[object] = []
        self._constants: Constants | None = None

    def drop(self) -> None:
        """Forget them."""
        self._constants = None

    def get(
        self, weights: Callable[[], Sequence[torch.Tensor]], compute: Callable[[], Constants]
    ) -> Constants:
        """Return what `compute` returned, or would return now that one of `weights` differs."""
        if self._constants is None:
            self._weights = list(weights())
        state = _state_of(self._weights)
        if self._constants is None or state != self._state:
            self._constants, self._state = compute(), state
        return self._constants


def _state_of(weights: Sequence[torch.Tensor]) -> list[object]:
    device = weights[0].device.type
    precision: object = None
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        precision = torch.get_autocast_dtype(device)
    return [precision, *((w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights)]
