"""
LLM-MDE (arXiv 2409.01133): metric depth from an image with a vision and a language model.

Shapes: B batch, H and W pixels of the network's input, h and w its grid of patches, N = h·w
image tokens, Dv width of the vision encoder, D width of the language model, T prompt length, V
vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForDepthEstimation,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers import initialization as init
from transformers.utils import ModelOutput, cached_file

from llm_mde_core.config import LLMMDEConfig
from llm_mde_core.constants import Constants, KeptConstants
from llm_mde_core.head import DepthAndSpread, DepthHead, ResidualBlock
from llm_mde_core.image import LLMMDEImageProcessor
from llm_mde_core.language import LanguageModel
from llm_mde_core.prompt import AdaptivePrompt, tokenize_prompt
from llm_mde_core.reprogramming import Bottleneck, Reprogramming
from llm_mde_core.tokenizer_file import CONFIG, FILE, read_tokenizer
from llm_mde_core.vision import VisionEncoder

HARMLESS = 2**26  # numbers of a network that any machine can hold


@dataclass
class LLMMDEOutput(ModelOutput):
    """What the network says about a batch of images."""

    predicted_depth: torch.Tensor | None = None  # float32 (B, H, W), metres
    log_spread: torch.Tensor | None = (
        None  # float32 (B, H, W), log of the Laplace scale of log-depth
    )
    depth_class: torch.Tensor | None = (
        None  # int64 (B,), index of the prompt's class word; None without language
    )
    class_similarity: torch.Tensor | None = (
        None  # (B, 7), to the depth-class words; None without language
    )
    prompt_ids: torch.Tensor | None = None  # int64 (B, T), -1 where unused; None without language


class LLMMDEForDepthEstimation(PreTrainedModel):
    """
    The network in its own space: tensors in, tensors out. `DepthEstimator` is the door for users.

    `create` starts a new model from pretrained parts; `from_pretrained` reads a whole one.
    `tokenizer` is the language model's, saved and loaded with the weights, needed only to read
    prompts back.
    """

    config_class = LLMMDEConfig
    base_model_prefix = 'llm_mde'
    main_input_name = 'pixel_values'
    _supports_sdpa = True

    def __init__(self, config: LLMMDEConfig) -> None:
        super().__init__(config)
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self._kept = KeptConstants()
        self.vision = VisionEncoder(config)
        vision_dim = config.vision_config.hidden_size
        if config.language == 'none':
            token_dim = vision_dim
        else:
            token_dim = config.language_config.hidden_size
            self.reprogramming = Reprogramming(config)
            self.prompt = AdaptivePrompt(config)
            self.language = LanguageModel(config)
        self.bottleneck = Bottleneck(token_dim, config.bottleneck_dim)
        self.head = DepthHead(
            config,
            token_dim=token_dim,
            level_channels=self.vision.level_channels,
            pyramid=self.vision.levels_are_a_pyramid,
        )
        self.register_buffer('image_mean', torch.tensor(config.image_mean).view(1, 3, 1, 1))
        self.register_buffer('image_std', torch.tensor(config.image_std).view(1, 3, 1, 1))
        self.post_init()

    def forward(
        self,
        pixel_values: torch.Tensor,
        focal_px: torch.Tensor | None = None,
        constants: Constants | None = None,
    ) -> LLMMDEOutput:
        """
        Estimate the depth of images (B, 3, H, W), RGB in 0 to 1, in whole patches.

        `focal_px` (B,) is the focal length in pixels of this input; None means the canonical one.
        `constants` are those of `self.constants()`; None takes them from there.
        Raises ValueError for a size that the patches do not divide.
        """
        self._check_size(pixel_values)
        patches, levels = self.vision(
            (pixel_values - self.image_mean) / self.image_std
        )  # (B, N, Dv)
        if self.config.language == 'none':
            tokens, ids, chosen, similarity = self.bottleneck(patches), None, None, None
        else:
            known = constants or self._all_constants()
            rewritten = self.reprogramming(patches, known.keys, known.values)
            reprogrammed = self.bottleneck(rewritten)  # (B, N, D)
            prompt, ids, chosen, similarity = self.prompt(
                pixel_values, reprogrammed, self.language.word_embeddings, known.class_directions
            )  # (B, T, D)
            tokens = self.language(
                prompt, (ids >= 0).long(), reprogrammed, known.prefix
            )  # (B, N, D)
        canonical_m, log_spread = self.head(tokens, levels)  # (B, 1, 4h, 4w)
        return LLMMDEOutput(
            predicted_depth=self._metres(canonical_m, focal_px, size=pixel_values.shape[-2:]),
            log_spread=_resize(log_spread, pixel_values.shape[-2:])[:, 0],
            depth_class=chosen,
            class_similarity=similarity,
            prompt_ids=ids,
        )

    def constants(self) -> Constants | None:
        """
        Return what every image shares; None without language.

        Computed afresh while gradients are wanted, otherwise kept until a weight changes.
        """
        return None if self.config.language == 'none' else self._all_constants()

    def _all_constants(self) -> Constants:
        if torch.is_grad_enabled():
            return self._compute_constants()
        parts = (self.reprogramming, self.language)
        return self._kept.get(
            lambda: [weight for part in parts for weight in part.parameters()],
            self._compute_constants,
        )

    def _compute_constants(self) -> Constants:
        words = self.language.word_embeddings  # (V, D)
        keys, values = self.reprogramming.keys_and_values(words)
        prefix = None
        if not torch.is_grad_enabled():
            prefix = self.language.read_beginning(self.prompt.beginning(words))
        return Constants(keys, values, self.prompt.class_directions(words), prefix)

    def _apply(self, *args: Any, **kwargs: Any) -> LLMMDEForDepthEstimation:
        """Move or cast the weights, and with them what depends on them."""
        self._kept.drop()
        return super()._apply(*args, **kwargs)

    def train(self, mode: bool = True) -> LLMMDEForDepthEstimation:
        """Switch between training and inference; parts may have been replaced in between."""
        self._kept.drop()
        return super().train(mode)

    def _metres(
        self, canonical_m: torch.Tensor, focal_px: torch.Tensor | None, *, size: torch.Size
    ) -> torch.Tensor:
        """Scale to the real lens and enlarge; 1/z is interpolated, so a plane stays one."""
        depth = _resize(canonical_m.reciprocal(), size)[:, 0].reciprocal()
        if focal_px is not None:
            depth = depth * (focal_px.to(depth) / self.config.canonical_focal_px).view(-1, 1, 1)
        # While training, the bound would take the gradient away from what is too far.
        return depth if self.training else depth.clamp(max=self.config.max_depth_m)

    def _check_size(self, pixels: torch.Tensor) -> None:
        height, width = pixels.shape[-2:]
        patch = self.config.patch_px
        if height % patch or width % patch or not height or not width:
            raise ValueError(
                f'the network takes sides that are multiples of {patch} pixels, '
                f'not {height} x {width}'
            )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise our own layers; the backbones of transformers initialise theirs."""
        if isinstance(module, DepthAndSpread):
            init.normal_(module.weight, std=0.01)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            init.kaiming_normal_(module.weight, nonlinearity='relu')
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=module.in_features**-0.5)
        elif isinstance(module, ResidualBlock):
            init.zeros_(
                module.second.weight
            )  # starts as its shortcut, so that depth adds no noise
        if (
            isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
            and module.bias is not None
        ):
            init.zeros_(module.bias)

    @classmethod
    def create(
        cls, config: LLMMDEConfig, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> LLMMDEForDepthEstimation:
        """
        Build a new model, backbones from pretrained weights where the configuration names any.

        `tokenizer` defaults to the one of `config.language_name`.
        """
        tokens = None
        if config.language != 'none':
            if tokenizer is None and not config.language_name:
                raise ValueError(
                    'a language model needs a tokenizer: pass one, or name it in language_name'
                )
            tokenizer = tokenizer or AutoTokenizer.from_pretrained(config.language_name)
            tokens = tokenize_prompt(tokenizer, dataset=config.prompt_dataset)
            config.prompt_layout = tokens.layout
        model = cls(config)
        if config.vision_name:
            _take_weights(model.vision.backbone, config.vision_name)
        if tokens is not None:
            model.tokenizer = tokenizer
            model.prompt.load_tokens(tokens)
            model.prompt.check_tokenizer(model.tokenizer)
            if config.language_name and config.language == 'pretrained':
                _take_weights(model.language.backbone, config.language_name)
        return model

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> Any:
        """
        Read a model and its tokenizer; safetensors only, and every name must match.

        The weights become float32, whatever they were saved as, unless `dtype` says otherwise.
        """
        name = pretrained_model_name_or_path
        wants_info = kwargs.get('output_loading_info', False)
        kwargs |= {'use_safetensors': True, 'output_loading_info': True}
        kwargs.setdefault('dtype', torch.float32)
        kwargs |= {'ignore_mismatched_sizes': True}  # they are refused here, by name
        if Path(name).is_dir():
            cls._check_bytes(Path(name))
        model, info = super().from_pretrained(name, *args, **kwargs)
        kinds = ('missing_keys', 'unexpected_keys', 'mismatched_keys')
        wrong = {kind: sorted(info[kind]) for kind in kinds if info[kind]}
        for part in ('image_mean', 'image_std'):  # normalisation is with the weights, too
            held, said = getattr(model, part).flatten().tolist(), getattr(model.config, part)
            if not all(map(partial(math.isclose, abs_tol=0.002), held, said)):  # of float16
                wrong[part] = [f'{held} with the weights', f'{said} in config.json']
        if wrong:
            raise ValueError(f'the weights in {name} do not fit their configuration: {wrong}')
        if model.config.language != 'none':
            model.prompt.check_tokens(vocabulary=len(model.language.word_embeddings))
            model.tokenizer = read_tokenizer(_tokenizer_folder(name, _hub_options(kwargs)))
            model.prompt.check_tokenizer(model.tokenizer)
        return (model, info) if wants_info else model

    @classmethod
    def _check_bytes(cls, folder: Path) -> None:
        """Refuse a configuration of more numbers than weights before memory is taken for it."""
        with torch.device('meta'):
            described = cls(LLMMDEConfig.from_pretrained(folder)).state_dict()
        numbers = sum(weight.numel() for weight in described.values())
        held = sum(path.stat().st_size for path in folder.glob('*.safetensors'))
        if numbers > max(held, HARMLESS):
            raise ValueError(
                f'{folder / "config.json"} describes a network of {numbers} numbers, its weights '
                f'have {held} bytes: they do not fit their configuration'
            )

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> None:
        """Write weights, configuration, tokenizer and preprocessing into one folder."""
        super().save_pretrained(save_directory, *args, **kwargs)
        LLMMDEImageProcessor.from_config(self.config).save_pretrained(Path(save_directory))
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory)


def _resize(maps: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return functional.interpolate(maps, size=size, mode='bilinear', align_corners=False)


def _take_weights(backbone: nn.Module, name: str) -> None:
    """Copy pretrained weights; a pooler, which we drop, is all that may be left over."""
    weights = AutoModel.from_pretrained(name, use_safetensors=True).state_dict()
    backbone.load_state_dict(
        {key: value for key, value in weights.items() if not key.startswith('pooler.')}
    )


def _tokenizer_folder(name: str | os.PathLike[str], options: dict[str, Any]) -> Path:
    """Return where a model's tokenizer is: its own folder, or the hub's files on this machine."""
    cached_file(name, CONFIG, _raise_exceptions_for_missing_entries=False, **options)
    return Path(str(cached_file(name, FILE, **options))).parent


def _hub_options(options: dict[str, Any]) -> dict[str, Any]:
    names = ('revision', 'token', 'cache_dir', 'local_files_only', 'subfolder')
    return {name: options[name] for name in names if name in options}


AutoConfig.register(LLMMDEConfig.model_type, LLMMDEConfig)
AutoModelForDepthEstimation.register(LLMMDEConfig, LLMMDEForDepthEstimation)
AutoImageProcessor.register(LLMMDEConfig, image_processor_classes={'pil': LLMMDEImageProcessor})
