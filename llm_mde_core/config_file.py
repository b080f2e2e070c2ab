"""
What is read of a model's config.json: the settings that its kind of network has, and no others.

transformers takes more from it, such as where code for attention is fetched from: a file that
somebody else has written must not choose what runs here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig, __version__

# The model_type of backbones that are known to work: add one when it does, here or in a script.
BACKBONES = {
    'vision': {'vit', 'deit', 'dinov2', 'dinov2_with_registers', 'dinov3_vit', 'ijepa', 'vit_msn'},
    'language': {'bert', 'roberta', 'electra', 'gpt2', 'llama', 'mistral', 'qwen2', 'qwen3'},
}
ATTENTION = ('attn_implementation', '_attn_implementation')
OF_TORCH = (None, 'eager', 'sdpa')  # ways of attention that need no other package
# How a backbone computes, not what; a value that cannot be would show with the first image.
UNREAD = (
    'chunk_size_feed_forward',
    'output_attentions',
    'output_hidden_states',
    'return_dict',
)
# What a model of ours says of itself; it changes nothing.
ABOUT = ('training_data', 'weights_license', 'exported_from')


def check_backbone(part: str, model_type: Any) -> None:
    """Raise ValueError unless the vision or language part can be of this type."""
    if not isinstance(model_type, str) or model_type not in BACKBONES[part]:
        raise ValueError(
            f'{part}_config is of type {model_type!r:.99}, which is none of '
            f'{", ".join(sorted(BACKBONES[part]))} (BACKBONES in llm_mde_core/config_file.py)'
        )


def read_settings(found: Mapping[str, Any], usual: PretrainedConfig) -> dict[str, Any]:
    """
    Return what is read of `found`, the JSON of a configuration like `usual`.

    Raises ValueError for a setting that such a configuration does not have, unless it is empty.
    """
    known = _settings_of(usual)
    for name, value in found.items():
        if name in ATTENTION and value in OF_TORCH:
            continue
        if name in ATTENTION or (value and name not in known):
            raise ValueError(
                f'config.json sets {name} to {value!r:.99}, which is no setting of a '
                f'{type(usual).__name__} that is read (transformers {__version__})'
            )
    taken = {*known, *ATTENTION} - {*UNREAD}
    return {name: value for name, value in found.items() if name in taken}


def drop_foreign(config: PretrainedConfig) -> None:
    """Delete from a backbone's configuration what its class does not have; hubs' files do."""
    known = _settings_of(type(config)())
    for name in config.to_dict().keys() & vars(config).keys() - known:
        delattr(config, name)


def _settings_of(usual: PretrainedConfig) -> set[str]:
    # attribute_map: GPT-2 says n_embd and understands hidden_size.
    return {*usual.to_dict(), *usual.attribute_map, *ABOUT}
