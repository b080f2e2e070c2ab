"""
What is read of an adapter's adapter_config.json: the few settings that adapters of ours have.

peft knows many more, of which one names a module that it imports, and takes most names for regular
expressions, of which one can take forever: a file that somebody else has written must not choose
what runs here.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
import math
from pathlib import Path
import re
from typing import Any

from peft import LoraConfig

from llm_mde_core.model_files import read_object

FILE = 'adapter_config.json'
# Query and value projections as the families name them; GPT-2 has one for all three.
PROJECTIONS = r'.*\.(query|value|q_proj|v_proj|c_attn)'
RANK_PATTERNS = {part: rf'{part}\.backbone{PROJECTIONS}' for part in ('vision', 'language')}
MAX_RANK = 1024
MAX_NAMES = 1000


def projections_of(*parts: str) -> str:
    """Return the regular expression of what LoRA stands beside in these backbones."""
    return rf'({"|".join(parts)})\.backbone{PROJECTIONS}'


def read_adapter_config(folder: Path, *, ranks: Container[int]) -> LoraConfig:
    """
    Return the settings of the adapter in a folder, whose weights have these ranks.

    Raises ValueError for another kind of adapter, and for settings that we do not know.
    """
    found = read_object(folder / FILE)
    if found.get('peft_type') != 'LORA':
        raise ValueError(f'{folder / FILE} is of kind {found.get("peft_type")!r}, not LORA')
    usual = LoraConfig().to_dict()
    for name, value in found.items():
        if name not in (*TAKEN, *WITHOUT_EFFECT) and value and value != usual.get(name):
            raise ValueError(f'{folder / FILE} sets {name} to {value!r:.99}: only LoRA is read')
    taken = {name: found[name] for name in TAKEN if name in found}
    for name, value in taken.items():
        if not TAKEN[name](value):
            raise ValueError(f'{folder / FILE} sets {name} to {value!r:.99}, which cannot be')
    for rank in (taken.get('r', usual['r']), *taken.get('rank_pattern', {}).values()):
        if rank > MAX_RANK or rank not in ranks:  # peft makes room for it before it looks
            raise ValueError(f'{folder / FILE} has rank {rank}, which its weights do not have')
    return LoraConfig(**taken, inference_mode=True)


def _is_rank(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_factor(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MAX_NAMES and all(map(_is_name, value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r'[\w.]+', value, flags=re.ASCII) is not None


def _is_pattern(value: Any, is_right: Callable[[Any], bool]) -> bool:
    return isinstance(value, Mapping) and all(
        name in RANK_PATTERNS.values() and is_right(number) for name, number in value.items()
    )


# Of few shots it is names.
TARGETS = [projections_of(*p) for p in (('vision', 'language'), ('vision',), ('language',))]
TAKEN: dict[str, Callable[[Any], bool]] = {
    'r': _is_rank,
    'lora_alpha': _is_factor,
    'target_modules': lambda value: value in TARGETS or _is_names(value),
    'rank_pattern': lambda value: _is_pattern(value, _is_rank),
    'alpha_pattern': lambda value: _is_pattern(value, _is_factor),
    'modules_to_save': lambda value: value is None or _is_names(value),
    'fan_in_fan_out': _is_flag,
    'use_rslora': _is_flag,
    'use_dora': _is_flag,
}
# They describe the file, or what only training does.
WITHOUT_EFFECT = (
    'auto_mapping',
    'base_model_name_or_path',
    'inference_mode',
    'init_lora_weights',
    'lora_dropout',
    'peft_type',
    'peft_version',
    'revision',
    'task_type',
    'megatron_core',  # used with megatron_config alone, which is refused
)
