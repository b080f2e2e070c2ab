"""Configuration of LLM-MDE: one typed object that travels with the weights."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from transformers import (
    AutoConfig,
    BertConfig,
    Dinov2Config,
    GPT2Config,
    PretrainedConfig,
    ViTConfig,
)

from llm_mde_core.config_file import check_backbone, drop_foreign, read_settings

LANGUAGE_CHOICES = ('pretrained', 'random', 'none')
PROMPT_CHOICES = ('adaptive', 'fixed', 'shuffled')
SIZES = (
    'num_prototypes',
    'reprogramming_heads',
    'reprogramming_head_dim',
    'bottleneck_dim',
    'head_dim',
)
# No network has more; a damaged number shall not make this machine build one for hours.
MAX_SIZE = 2**20
MAX_LAYERS = 1000
MAX_IMAGE_SIZE = 8192


class LLMMDEConfig(PretrainedConfig):
    """
    Architecture, prompt, camera and depth range of an LLM-MDE network.

    `vision_config` and `language_config` are configurations (or dictionaries with a
    `model_type`) of a ViT-like and a BERT-, GPT-2-, LLaMA- or Qwen-like model of transformers
    (`config_file.BACKBONES`). `vision_name` and `language_name` name the pretrained weights that
    `LLMMDEForDepthEstimation.create` starts from; without a name a part starts from random
    weights. A name alone brings its configuration.

    A stem of convolutions (`stem_channels`, one entry per halving of the resolution) may come
    before the transformer; its `patch_size` is then 1, the stem's last map is what it reads, and
    finer ones of the stem join in the head instead of the layers `vision_levels`.

    Ablations: `language` ('pretrained', 'random', 'none'), `prompt` ('adaptive', 'fixed',
    'shuffled'), `value_is_key` (the prototypes' keys are their values too, as in the authors'
    code) and LoRA ranks of 0.

    Images are resized to the focal length `canonical_focal_px`, in pixels of the network's input,
    or less where the long side would exceed `image_size`. Depth is predicted for that camera,
    multiplied by the ratio of the real focal length to it, and never exceeds `max_depth_m`.
    Raises ValueError for a value that cannot work.
    """

    model_type = 'llm_mde'
    sub_configs: ClassVar[dict[str, Any]] = {
        'vision_config': AutoConfig,
        'language_config': AutoConfig,
    }

    def __init__(
        self,
        vision_config: PretrainedConfig | dict[str, Any] | None = None,
        language_config: PretrainedConfig | dict[str, Any] | None = None,
        vision_name: str = '',
        language_name: str = '',
        stem_channels: tuple[int, ...] = (),
        vision_levels: tuple[int, ...] = (3, 6),
        num_prototypes: int = 1000,
        reprogramming_heads: int = 8,
        reprogramming_head_dim: int = 128,
        value_is_key: bool = False,
        bottleneck_dim: int = 192,
        head_dim: int = 128,
        language: str = 'pretrained',
        prompt: str = 'adaptive',
        prompt_dataset: str = 'indoor rooms seen by one camera',
        prompt_layout: dict[str, Any] | None = None,
        lora_vision_rank: int = 160,
        lora_vision_alpha: int = 320,
        lora_language_rank: int = 32,
        lora_language_alpha: int = 64,
        image_size: int = 320,
        image_mean: tuple[float, ...] = (0.5, 0.5, 0.5),
        image_std: tuple[float, ...] = (0.5, 0.5, 0.5),
        canonical_focal_px: float = 260.0,
        min_depth_m: float = 0.1,
        max_depth_m: float = 10.0,
        spread_factor: float = 1.0,
        **kwargs: Any,
    ) -> None:
        self.vision_config = _backbone('vision', vision_config, vision_name, ViTConfig())
        self.language_config = _backbone('language', language_config, language_name, BertConfig())
        self.vision_name = vision_name
        self.language_name = language_name
        self.stem_channels = list(stem_channels)
        self.vision_levels = list(vision_levels)
        self.num_prototypes = num_prototypes
        self.reprogramming_heads = reprogramming_heads
        self.reprogramming_head_dim = reprogramming_head_dim
        self.value_is_key = value_is_key
        self.bottleneck_dim = bottleneck_dim
        self.head_dim = head_dim
        self.language = language
        self.prompt = prompt
        self.prompt_dataset = prompt_dataset
        self.prompt_layout = prompt_layout
        self.lora_vision_rank = lora_vision_rank
        self.lora_vision_alpha = lora_vision_alpha
        self.lora_language_rank = lora_language_rank
        self.lora_language_alpha = lora_language_alpha
        self.image_size = image_size
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.canonical_focal_px = canonical_focal_px
        self.min_depth_m = min_depth_m
        self.max_depth_m = max_depth_m
        self.spread_factor = spread_factor
        super().__init__(**kwargs)
        self._check()

    def _check(self) -> None:
        for name in SIZES:
            _check_whole(name, getattr(self, name))
        for number in (*self.stem_channels, *self.vision_levels):
            _check_whole('stem_channels and vision_levels', number)
        for part in ('vision', 'language'):
            _check_whole(f'lora_{part}_rank', getattr(self, f'lora_{part}_rank'), least=0)
            layers = getattr(self, f'{part}_config').num_hidden_layers
            _check_whole(f'num_hidden_layers of {part}', layers, most=MAX_LAYERS)
        if self.language not in LANGUAGE_CHOICES:
            raise ValueError(f'language must be one of {LANGUAGE_CHOICES}, not {self.language!r}')
        if self.prompt not in PROMPT_CHOICES:
            raise ValueError(f'prompt must be one of {PROMPT_CHOICES}, not {self.prompt!r}')
        if not 0.0 < self.min_depth_m < self.max_depth_m < math.inf:
            raise ValueError(
                'the depth range must satisfy 0 < min_depth_m < max_depth_m, '
                f'not {self.min_depth_m} to {self.max_depth_m}'
            )
        if not 0.0 < self.spread_factor < math.inf:
            raise ValueError(f'spread_factor must be positive, not {self.spread_factor}')
        if not 0.0 < self.canonical_focal_px < math.inf:
            raise ValueError(f'canonical_focal_px must be positive, not {self.canonical_focal_px}')
        _check_whole('image_size', self.image_size, most=MAX_IMAGE_SIZE)
        if len(self.image_mean) != 3 or not all(map(math.isfinite, self.image_mean)):
            raise ValueError(f'image_mean must be three numbers, not {self.image_mean}')
        if len(self.image_std) != 3 or not all(0.0 < std < math.inf for std in self.image_std):
            raise ValueError(f'image_std must be three positive numbers, not {self.image_std}')
        if self.stem_channels and self.vision_config.patch_size != 1:
            raise ValueError(
                'a stem needs a vision encoder with patch_size 1, '
                f'not {self.vision_config.patch_size}'
            )
        if len(self.vision_levels) != 2:
            raise ValueError(f'vision_levels must name two layers, not {self.vision_levels}')
        layers = self.vision_config.num_hidden_layers
        if not all(1 <= level <= layers for level in self.vision_levels):
            raise ValueError(f'vision_levels {self.vision_levels} must lie in 1 to {layers}')

    @property
    def patch_px(self) -> int:
        """Side of the square of input pixels that one image token stands for."""
        return int(self.vision_config.patch_size) * 2 ** len(self.stem_channels)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Take what a config.json says; ValueError for a setting that we do not know."""
        return super().from_dict(read_settings(config_dict, cls()), **kwargs)

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> LLMMDEConfig:
        """Return a preset: 'paper', 'small' or 'tiny'; `overrides` replace single fields."""
        if name not in PRESETS:
            raise ValueError(f'unknown preset {name!r}: choose one of {sorted(PRESETS)}')
        return cls(**(PRESETS[name]() | overrides))


def _check_whole(name: str, value: Any, *, least: int = 1, most: int = MAX_SIZE) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f'{name} must be a whole number from {least} to {most}, not {value!r}')


def _backbone(
    part: str,
    config: PretrainedConfig | dict[str, Any] | None,
    name: str,
    default: PretrainedConfig,
) -> PretrainedConfig:
    if config is None:
        config = AutoConfig.from_pretrained(name) if name else default
    if isinstance(config, dict):
        if 'model_type' not in config:
            raise ValueError(
                f'a backbone configuration needs a model_type, got only {sorted(config)}'
            )
        check_backbone(part, config['model_type'])
        usual = AutoConfig.for_model(config['model_type'])
        return type(usual)(**read_settings(config, usual))
    check_backbone(part, config.model_type)
    drop_foreign(config)
    return config


def _paper() -> dict[str, Any]:
    """ViT-B/16 and BERT-base, the sizes that the authors' code ships with."""
    return dict(
        vision_config=ViTConfig(),
        language_config=BertConfig(),
        vision_name='google/vit-base-patch16-224-in21k',
        language_name='google-bert/bert-base-uncased',
        image_size=224,
        canonical_focal_px=180.0,
    )


def _small() -> dict[str, Any]:
    """Return the sizes of DINOv2-small and GPT-2."""
    return dict(
        vision_config=Dinov2Config(
            hidden_size=384,
            num_hidden_layers=12,
            num_attention_heads=6,
            patch_size=14,
            image_size=518,
        ),
        language_config=GPT2Config(),
        vision_name='facebook/dinov2-small',
        language_name='openai-community/gpt2',
        image_size=322,
        canonical_focal_px=260.0,
        image_mean=(0.485, 0.456, 0.406),
        image_std=(0.229, 0.224, 0.225),
        head_dim=64,
        lora_vision_rank=32,
        lora_vision_alpha=64,
        lora_language_rank=16,
        lora_language_alpha=32,
    )


def _tiny() -> dict[str, Any]:
    """Bundled size: 10 frames a second on two CPU cores; trained from random weights."""
    return dict(
        vision_config=ViTConfig(
            hidden_size=192,
            num_hidden_layers=6,
            num_attention_heads=6,
            intermediate_size=576,
            num_channels=128,
            patch_size=1,
            image_size=16,
        ),
        # Norms before, not after its layers: trained from random weights with norms after them
        # it came to say the same for every patch.
        language_config=GPT2Config(
            vocab_size=4096,
            n_positions=512,
            n_embd=192,
            n_layer=3,
            n_head=6,
            n_inner=576,
            activation_function='gelu',
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=None,
            eos_token_id=None,
        ),
        language='random',
        stem_channels=(24, 48, 96, 128),
        num_prototypes=128,
        reprogramming_heads=6,
        reprogramming_head_dim=32,
        bottleneck_dim=48,
        head_dim=64,
        lora_vision_rank=8,
        lora_vision_alpha=16,
        lora_language_rank=8,
        lora_language_alpha=16,
        image_size=224,
        canonical_focal_px=154.0,
    )


PRESETS = {'paper': _paper, 'small': _small, 'tiny': _tiny}
