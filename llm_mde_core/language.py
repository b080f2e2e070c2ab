"""
The language model that reads [prompt tokens ; image tokens] and returns the image tokens.

Shapes: B batch, T prompt length, N image tokens, D width of the language model, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import AutoModel

from llm_mde_core.config import LLMMDEConfig


class LanguageModel(nn.Module):
    """A BERT, GPT-2, LLaMA or Qwen like model of transformers, without its task head."""

    def __init__(self, config: LLMMDEConfig) -> None:
        super().__init__()
        self.backbone = AutoModel.from_config(config.language_config)
        self.backbone.config.use_cache = False
        self.backbone.pooler = None  # its output is never used
        self.max_positions = config.language_config.max_position_embeddings

    @property
    def word_embeddings(self) -> torch.Tensor:
        """Return the embedding matrix (V, D)."""
        return self.backbone.get_input_embeddings().weight

    def forward(self, prompt: torch.Tensor, prompt_mask: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Read prompt (B, T, D) with its mask (B, T) and image tokens (B, N, D); return tokens (B, N, D)."""
        image_mask = prompt_mask.new_ones(tokens.shape[:2])
        output = self.backbone(
            inputs_embeds=torch.cat([prompt, tokens.to(prompt.dtype)], dim=1),
            attention_mask=torch.cat([prompt_mask, image_mask], dim=1),
            position_ids=self._positions(prompt_mask, image_tokens=tokens.shape[1]),
        )
        return output.last_hidden_state[:, prompt.shape[1] :]

    def _positions(self, prompt_mask: torch.Tensor, *, image_tokens: int) -> torch.Tensor:
        """
        Number the tokens that are used: masked places take no position.

        More image tokens than the model has positions for share them evenly, so that no input size is refused.
        """
        prompt = (prompt_mask.cumsum(dim=1) - 1).clamp(min=0)
        image = torch.arange(image_tokens, device=prompt_mask.device)
        room = self.max_positions - prompt_mask.shape[1]
        if room < 1:
            raise ValueError(
                f'a prompt of {prompt_mask.shape[1]} tokens leaves no room for the image in a language model with '
                f'{self.max_positions} positions: shorten prompt_dataset'
            )
        if image_tokens > room:
            image = image * room // image_tokens
        return torch.cat([prompt, prompt_mask.sum(dim=1, keepdim=True) + image], dim=1)
