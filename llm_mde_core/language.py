"""
The language model that reads [prompt tokens ; image tokens] and returns the image tokens.

Shapes: B batch, T prompt length, P places of it that are the same for every image, N image
tokens, D width of the language model, V vocabulary, d width of a head.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import AutoModel, DynamicCache

from llm_mde_core.config import LLMMDEConfig
from llm_mde_core.constants import Prefix


class LanguageModel(nn.Module):
    """A BERT, GPT-2, LLaMA or Qwen like model of transformers, without its task head."""

    def __init__(self, config: LLMMDEConfig) -> None:
        super().__init__()
        # A dtype in the configuration would be that of a file it was read from.
        self.backbone = AutoModel.from_config(
            config.language_config, dtype=torch.get_default_dtype()
        )
        self.backbone.config.use_cache = False
        self.backbone.pooler = None  # its output is never used
        self.max_positions = config.language_config.max_position_embeddings
        # GPT-2, LLaMA and Qwen read from left to right, BERT in both directions.
        self.is_causal = any(getattr(m, 'is_causal', False) for m in self.backbone.modules())

    @property
    def word_embeddings(self) -> torch.Tensor:
        """Return the embedding matrix (V, D)."""
        return self.backbone.get_input_embeddings().weight

    def forward(
        self,
        prompt: torch.Tensor,
        prompt_mask: torch.Tensor,
        tokens: torch.Tensor,
        prefix: Prefix | None = None,
    ) -> torch.Tensor:
        """
        Read prompt (B, T, D), its mask (B, T) and tokens (B, N, D); return (B, N, D).

        `prefix` is what `read_beginning` made of the prompt's first P places.
        """
        cache, done = None, 0
        if prefix is not None:
            done = prefix[0][0].shape[2]  # P
            batch = len(prompt)
            cache = DynamicCache(
                [[part.expand(batch, -1, -1, -1) for part in kv] for kv in prefix]
            )
        used = torch.cat([prompt_mask, prompt_mask.new_ones(tokens.shape[:2])], dim=1)
        output = self.backbone(
            inputs_embeds=torch.cat([prompt[:, done:], tokens.to(prompt.dtype)], dim=1),
            attention_mask=self._attention_mask(used)[:, :, done:],
            position_ids=self._positions(prompt_mask, image_tokens=tokens.shape[1])[:, done:],
            past_key_values=cache,
            return_dict=True,  # whatever its configuration says
        )
        return output.last_hidden_state[:, prompt.shape[1] - done :]

    def read_beginning(self, beginning: torch.Tensor) -> Prefix | None:
        """
        Return keys and values (1, heads, P, d) per layer of what every prompt begins with.

        `beginning` is (1, P, D). None when there is none, or the model reads in both directions.
        """
        if not self.is_causal or beginning.shape[1] == 0:
            return None
        used = torch.ones(beginning.shape[:2], dtype=torch.long, device=beginning.device)
        cache = DynamicCache()
        self.backbone(
            inputs_embeds=beginning,
            attention_mask=self._attention_mask(used),
            position_ids=self._positions(used, image_tokens=0),
            past_key_values=cache,
        )
        return [(layer.keys, layer.values) for layer in cache.layers]

    def _attention_mask(self, used: torch.Tensor) -> torch.Tensor:
        """
        Return what attention scores are increased by, (B, 1, T + N, T + N).

        Built here because transformers looks at the values of a mask (B, T + N) on the host.
        """
        count = used.shape[1]
        allowed = used.bool()[:, None, None, :].expand(-1, 1, count, -1)
        if self.is_causal:
            allowed = allowed.tril()
        mask = torch.zeros(allowed.shape, dtype=torch.float32, device=used.device)
        return mask.masked_fill(~allowed, torch.finfo(mask.dtype).min)

    def _positions(self, prompt_mask: torch.Tensor, *, image_tokens: int) -> torch.Tensor:
        """
        Return the positions of the tokens that are used; masked places take none.

        More image tokens than the model has positions for share them evenly, so that no input
        size is refused.
        """
        prompt = (prompt_mask.cumsum(dim=1) - 1).clamp(min=0)
        image = torch.arange(image_tokens, device=prompt_mask.device)
        room = self.max_positions - prompt_mask.shape[1]
        if room < 1:
            raise ValueError(
                f'a prompt of {prompt_mask.shape[1]} tokens leaves no room for the image in a '
                f'language model with {self.max_positions} positions: shorten prompt_dataset'
            )
        if image_tokens > room:
            image = image * room // image_tokens
        return torch.cat([prompt, prompt_mask.sum(dim=1, keepdim=True) + image], dim=1)
