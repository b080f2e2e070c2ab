"""Which files of a model are read: safetensors, JSON and text; never a pickle, never code."""

from __future__ import annotations

import json
from pathlib import Path
import re
from typing import Any

PARTS = ('vision', 'language')


def check_model_folder(folder: str | Path) -> None:
    """
    Raise ValueError unless the folder holds all of the model itself, weights as safetensors.

    A backbone that config.json only names would be looked up on the hub. An index of weights
    (`model.safetensors.index.json`) may name parts as it likes, and transformers would hand one of
    another kind to torch.load.
    """
    folder = Path(folder)
    config = _read_object(folder / 'config.json')
    for part in PARTS:
        if config.get(f'{part}_name') and not isinstance(config.get(f'{part}_config'), dict):
            raise ValueError(
                f'{folder / "config.json"} names {config[f"{part}_name"]!r} in place of a '
                f'{part}_config: nothing is fetched for a model that is in a folder'
            )
    for index in sorted(folder.glob('*.index.json')):
        parts = _read_object(index).get('weight_map')
        if not isinstance(parts, dict):
            raise ValueError(f'{index} is no index of weights: it has no weight_map')
        for part in sorted(set(map(str, parts.values()))):
            if not part.endswith('.safetensors') or Path(part).name != part:
                raise ValueError(
                    f'{index} names {part!r} as a part of the weights: only safetensors files '
                    'of the same folder are read'
                )


def pinned_model(name: str) -> tuple[str, str]:
    """
    Split `owner/name@commit` into the hub's id and the commit of 40 hexadecimal digits.

    ValueError without one: what a name or a branch stands for, its owner can change at any time.
    """
    found = re.fullmatch(r'([\w.-]+/[\w.-]+)@([0-9a-f]{40})', name, flags=re.ASCII)
    if not found:
        raise ValueError(
            f'a model of the hub is given as owner/name@commit, the commit as 40 hexadecimal '
            f'digits, not {name!r}'
        )
    return found[1], found[2]


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except ValueError as error:  # bytes that are no text, too
        raise ValueError(f'{path} is no JSON: {error}') from error
    except RecursionError as error:
        raise ValueError(f'{path} is nested too deeply') from error
    if not isinstance(value, dict):
        raise ValueError(f'{path} holds no JSON object')
    return value
