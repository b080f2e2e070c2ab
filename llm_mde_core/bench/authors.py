"""
LLM-MDE computed the way the authors' code computes it: what the benchmark compares with.

A plain reference with random weights, which speed does not depend on, and with everything that
costs time there: prototypes, their keys and (never used) values are computed for every frame, the
prompt is a string made on the host and tokenised for every frame, the head works at the full
resolution of the image. Its LoRA factors are left out, as if merged: that favours it.

Shapes: H and W pixels of the image, N image tokens, T prompt length, D width of the language
model, K prototypes, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertModel, PreTrainedTokenizerBase, ViTConfig, ViTModel

from llm_mde_core.prompt import CLASS_WORDS, DEPTH_CLASSES

MAP_CHANNELS = 3
MAP_SIDE = 32
CLASS_BINS = tuple(DEPTH_CLASSES.values())


class AuthorsLLMMDE(nn.Module):
    """One image in, a number from 0 to 1 for every pixel out (the original's sigmoid)."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        vision_config: ViTConfig | None = None,
        language_config: BertConfig | None = None,
        num_prototypes: int = 1000,
        heads: int = 24,
        prompt_length: int = 114,
    ) -> None:
        super().__init__()
        vision_config = vision_config or ViTConfig()
        language_config = language_config or BertConfig()
        self.tokenizer = tokenizer
        self.prompt_length = prompt_length
        size, patch = vision_config.image_size, int(vision_config.patch_size)
        height, width = (size, size) if isinstance(size, int) else size
        self.input_size = (int(height), int(width))
        image_tokens = (height // patch) * (width // patch)
        dim = int(language_config.hidden_size)
        self.vision = ViTModel(vision_config, add_pooling_layer=False)
        self.to_prototypes = nn.Linear(language_config.vocab_size, num_prototypes)
        self.attention = PrototypeAttention(vision_config.hidden_size, dim, heads=heads)
        self.bottleneck = nn.Sequential(*_narrow(dim), *_narrow(dim))
        self.language = BertModel(language_config, add_pooling_layer=False)
        self.to_channels = nn.Linear(prompt_length + image_tokens, MAP_CHANNELS)
        self.to_map = nn.Linear(dim, MAP_SIDE**2)
        self.head = FullResolutionHead()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn a normalised image (1, 3, H, W) into (1, 1, H, W), 0 to 1."""
        small = _resize(pixels, self.input_size)
        return self.read(pixels, small, self.prompt(small))

    def read(
        self, pixels: torch.Tensor, small: torch.Tensor, prompt: torch.Tensor
    ) -> torch.Tensor:
        """Do all that follows the prompt (1, T, D), without the host."""
        # [CLS] stays and the last patch goes, as in the original.
        patches = self.vision(small).last_hidden_state[:, :-1]  # (1, N, Dv)
        prototypes = self.to_prototypes(self._words.T).T  # (K, D)
        tokens = self.attention(patches, prototypes)  # (1, N, D)
        tokens = tokens + self.bottleneck(tokens)
        tokens = self.language(inputs_embeds=torch.cat([prompt, tokens], dim=1)).last_hidden_state
        channels = self.to_channels(tokens.transpose(1, 2)).transpose(1, 2)  # (1, 3, D)
        maps = self.to_map(channels).unflatten(2, (MAP_SIDE, MAP_SIDE))  # (1, 3, 32, 32)
        return torch.sigmoid(self.head(maps, pixels))

    def prompt(self, pixels: torch.Tensor) -> torch.Tensor:
        """Write, tokenise and embed the sentence about an image (1, 3, H, W): (1, T, D)."""
        ids = self.tokenizer(
            describe(pixels),
            padding='max_length',
            truncation=True,
            max_length=self.prompt_length,
            return_tensors='pt',
        )['input_ids']
        return functional.embedding(ids.to(pixels.device), self._words)

    @property
    def _words(self) -> torch.Tensor:
        return self.language.get_input_embeddings().weight  # (V, D)


class PrototypeAttention(nn.Module):
    """Cross-attention of image tokens to prototypes whose keys serve as values."""

    def __init__(self, vision_dim: int, dim: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(vision_dim, heads * dim)
        self.key = nn.Linear(dim, heads * dim)
        self.value = nn.Linear(dim, heads * dim)
        self.out = nn.Linear(heads * dim, dim)

    def forward(self, patches: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
        """Rewrite patches (1, N, Dv) with prototypes (K, D); returns (1, N, D)."""
        queries = self._split(self.query(patches[0]))  # (heads, N, D)
        keys = self._split(self.key(prototypes))  # (heads, K, D)
        self.value(prototypes)  # computed and thrown away there, too
        weights = (queries @ keys.transpose(1, 2) / keys.shape[2] ** 0.5).softmax(dim=2)
        return self.out((weights @ keys).transpose(0, 1).flatten(1))[None]

    def _split(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.reshape(len(tokens), self.heads, -1).transpose(0, 1)


class FullResolutionHead(nn.Module):
    """Three pairs of convolutions at the image's size; each joins the coarse map again."""

    def __init__(self) -> None:
        super().__init__()
        channels_before = MAP_CHANNELS  # the image itself
        self.steps = nn.ModuleList()
        for channels in (12, 24, 36):
            self.steps.append(
                nn.Sequential(
                    *_convolution(MAP_CHANNELS + channels_before, channels),
                    *_convolution(channels, channels),
                )
            )
            channels_before = channels
        self.out = nn.Conv2d(channels_before, 1, kernel_size=3, padding=1)

    def forward(self, maps: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Join maps (1, 3, 32, 32) with the image (1, 3, H, W); returns (1, 1, H, W)."""
        features = pixels
        for step in self.steps:
            # enlarged anew in every step, as in the original
            large = _resize(maps, pixels.shape[-2:], align_corners=True)
            features = step(torch.cat([large, features], dim=1))
        return self.out(features)


def describe(pixels: torch.Tensor) -> str:
    """Say in words where an image (1, 3, H, W) has its extremes, and its depth class."""
    places = [_place(pixels, axis) for axis in (3, 2)]
    statistics = '; '.join(
        f'{axis} axis: minimum {low}, median {middle}, maximum {high}'
        for axis, (low, middle, high) in zip('xy', places, strict=True)
    )
    return (
        'Data: pictures of indoor rooms, taken by one camera that looks at furniture, walls and '
        f'people. Task: estimate the depth of the picture. Statistics of the input: {statistics}. '
        f'The depth class of the input is {_depth_class(pixels)}.'
    )


def _place(pixels: torch.Tensor, axis: int) -> tuple[float, float, float]:
    """Return indices of minimum, median and maximum along an axis, each waiting for the device."""
    low = pixels.min(dim=axis).indices.max().item()
    middle = pixels.median(dim=axis).indices.median().item()
    high = pixels.max(dim=axis).indices.min().item()
    return low, middle, high


def _depth_class(pixels: torch.Tensor) -> str:
    """Return the word of the bin that the most frequent value of the pixels falls into."""
    values, counts = torch.unique(pixels, return_counts=True)
    most_frequent = values[counts.argmax()].item()
    index = sum(most_frequent > upper for upper in CLASS_BINS)
    return CLASS_WORDS[min(index, len(CLASS_WORDS) - 1)]


def _narrow(dim: int) -> list[nn.Module]:
    """Return the layers of one of the two MLPs of the bottleneck."""
    down = nn.Linear(dim, dim // 4, bias=False)
    up = nn.Linear(dim // 4, dim, bias=False)
    return [down, nn.ReLU(), up, nn.ReLU()]


def _convolution(channels_in: int, channels_out: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1)
    return [convolution, nn.BatchNorm2d(channels_out), nn.LeakyReLU()]


def _resize(
    maps: torch.Tensor, size: tuple[int, ...], *, align_corners: bool = False
) -> torch.Tensor:
    return functional.interpolate(maps, size=size, mode='bilinear', align_corners=align_corners)
