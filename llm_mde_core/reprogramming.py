"""
Cross-modal reprogramming (after Time-LLM): image tokens in the language model's own words.

Shapes: B batch, V vocabulary, K prototypes, D width of the language model, Dv width of the vision
encoder, N image tokens, d width of a head.
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
    axis. They, their keys and their values do not depend on the image (see `Constants`).
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

    def forward(
        self, patches: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """Rewrite patches (B, N, Dv) with the prototypes' keys and values; returns (B, N, D)."""
        queries = self._split_heads(self.query(patches))  # (B, heads, N, d)
        batch = queries.shape[0]
        attended = functional.scaled_dot_product_attention(
            queries, keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1)
        )
        return self.out(attended.transpose(1, 2).flatten(2))

    def keys_and_values(self, word_embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of the prototypes, (1, heads, K, d) each, from words (V, D)."""
        prototypes = self.norm(self.prototypes(word_embeddings))[None]
        keys = self._split_heads(self.key(prototypes))
        values = keys if self.value is None else self._split_heads(self.value(prototypes))
        return keys, values

    def prototypes(self, word_embeddings: torch.Tensor) -> torch.Tensor:
        """Map word embeddings (V, D) to prototypes (K, D)."""
        return self.to_prototypes(word_embeddings.T).T

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
