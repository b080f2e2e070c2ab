"""
Cross-modal reprogramming (after Time-LLM): image tokens in the language model's own words.

Shapes: V vocabulary, K prototypes, D width of the language model, Dv width of the vision
encoder, N image tokens.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from llm_mde_core.config import LLMMDEConfig


class Reprogramming(nn.Module):
    """
    Let image tokens attend to text prototypes, which give keys and, separately, values.

    The prototypes are a learnt linear map of the frozen word embeddings over the vocabulary
    axis. They, their keys and their values do not depend on the image, so outside training they
    are computed once and kept until a weight changes.
    """

    def __init__(self, config: LLMMDEConfig) -> None:
        super().__init__()
        self.heads = config.reprogramming_heads
        inner = config.reprogramming_heads * config.reprogramming_head_dim
        language_dim = config.language_config.hidden_size
        self.to_prototypes = nn.Linear(config.language_config.vocab_size, config.num_prototypes)
        self.norm = nn.LayerNorm(
            language_dim
        )  # word embeddings are small; attention needs contrast
        self.query = nn.Linear(config.vision_config.hidden_size, inner)
        self.key = nn.Linear(language_dim, inner)
        self.value = None if config.value_is_key else nn.Linear(language_dim, inner)
        self.out = nn.Linear(inner, language_dim)
        self._kept: tuple[tuple[object, ...], torch.Tensor, torch.Tensor] | None = None

    def forward(self, patches: torch.Tensor, word_embeddings: torch.Tensor) -> torch.Tensor:
        """Rewrite patches (B, N, Dv) with the words (V, D); returns (B, N, D)."""
        keys, values = self.keys_and_values(word_embeddings)  # (1, heads, K, d) each
        queries = self._split_heads(self.query(patches))  # (B, heads, N, d)
        batch = queries.shape[0]
        attended = functional.scaled_dot_product_attention(
            queries, keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1)
        )
        return self.out(attended.transpose(1, 2).flatten(2))

    def keys_and_values(self, word_embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of the prototypes; afresh only while gradients are wanted."""
        if torch.is_grad_enabled():
            return self._compute(word_embeddings)
        state = self._weights_state(word_embeddings)
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, *self._compute(word_embeddings))
        return self._kept[1], self._kept[2]

    def prototypes(self, word_embeddings: torch.Tensor) -> torch.Tensor:
        """Map word embeddings (V, D) to prototypes (K, D)."""
        return self.to_prototypes(word_embeddings.T).T

    def _compute(self, word_embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        prototypes = self.norm(self.prototypes(word_embeddings))[None]
        keys = self._split_heads(self.key(prototypes))
        values = keys if self.value is None else self._split_heads(self.value(prototypes))
        return keys, values

    def _weights_state(self, word_embeddings: torch.Tensor) -> tuple[object, ...]:
        """Return what changes when a weight is stepped, loaded, cast or moved."""
        sources = (self.to_prototypes, self.norm, self.key, self.value)
        weights = [word_embeddings, *(p for m in sources if m is not None for p in m.parameters())]
        device = word_embeddings.device.type
        precision = None
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            precision = torch.get_autocast_dtype(device)
        return (
            precision,
            *((w.data_ptr(), 0 if w.is_inference() else w._version, w.dtype) for w in weights),
        )

    def _split_heads(self, tokens: torch.Tensor) -> torch.Tensor:
        batch, count, _ = tokens.shape
        return tokens.reshape(batch, count, self.heads, -1).transpose(1, 2)


class Bottleneck(nn.Module):
    """Language-to-depth bottleneck: x + MLP(x) through a narrow middle, on tokens (B, N, D)."""

    def __init__(self, dim: int, narrow_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.down = nn.Linear(dim, narrow_dim)
        self.up = nn.Linear(narrow_dim, dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Keep the shape (B, N, D)."""
        return tokens + self.up(functional.gelu(self.down(self.norm(tokens))))
