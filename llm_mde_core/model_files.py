"""Where a model is, and which of its files are read: safetensors, JSON, text; never a pickle."""

from __future__ import annotations

import json
from pathlib import Path
import re
from typing import Any

from huggingface_hub import snapshot_download

from llm_mde_core.config import LLMMDEConfig
from llm_mde_core.digests import SUMS

CHECKPOINTS = Path(__file__).parent / 'checkpoints'
PARTS = ('vision', 'language')
FETCHED = ['*.json', '*.safetensors', '*.txt', SUMS]
# While it is parsed no other thread of the process works.
MAX_JSON_BYTES = 1_000_000  # an index of a thousand weights has 0.1 MB
MAX_TOKENIZER_BYTES = 64_000_000  # the largest vocabularies have half of it


def find_model(model: str | Path, *, allow_download: bool) -> str:
    """
    Return the folder of a bundled model, of a folder or, if `allow_download`, of the hub.

    A model of the hub is `owner/name@commit`. Raises FileNotFoundError when there is no such
    model and ValueError when it is none of ours, or would have other files read than its own.
    """
    bundled = sorted(folder.parent.name for folder in CHECKPOINTS.glob('*/config.json'))
    if str(model) in bundled:
        folder = CHECKPOINTS / model
    elif (Path(model) / 'config.json').is_file():
        folder = Path(model)
    elif allow_download and str(model).count('/') == 1 and not Path(model).exists():
        name, commit = pinned_model(str(model))
        folder = Path(snapshot_download(name, revision=commit, allow_patterns=FETCHED))
    else:
        hint = '' if allow_download else ' Set allow_download to fetch a model from the hub.'
        raise FileNotFoundError(
            f'no model {str(model)!r}: give a bundled name ({", ".join(bundled)}) or a folder '
            f'with a config.json.{hint}'
        )
    check_model_folder(folder)
    return str(folder)


def check_model_folder(folder: str | Path) -> None:
    """
    Raise ValueError unless the folder holds all of one of our models, weights as safetensors.

    A backbone that config.json only names would be looked up on the hub. An index of weights
    (`model.safetensors.index.json`) may name parts as it likes, and transformers would hand one of
    another kind to torch.load.
    """
    folder = Path(folder)
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            _check_file(path)
    for path in sorted(folder.glob('*.json')):
        _check_size(path, MAX_TOKENIZER_BYTES)
    if (folder / 'adapter_config.json').exists():  # transformers would give it to peft, unseen
        raise ValueError(f'{folder} holds a model and an adapter: each needs a folder of its own')
    config = read_object(folder / 'config.json')
    if config.get('model_type') != LLMMDEConfig.model_type:
        raise ValueError(
            f'{folder} holds a model of type {config.get("model_type")!r}, '
            f'not {LLMMDEConfig.model_type!r}'
        )
    if 'transformers_weights' in config:  # another way to name files of weights
        raise ValueError(
            f'{folder / "config.json"} names its weights in transformers_weights: only '
            'model.safetensors is read'
        )
    for part in PARTS:
        if config.get(f'{part}_name') and not isinstance(config.get(f'{part}_config'), dict):
            raise ValueError(
                f'{folder / "config.json"} names {config[f"{part}_name"]!r} in place of a '
                f'{part}_config: nothing is fetched for a model that is in a folder'
            )
    for index in sorted(folder.glob('*.index.json')):
        parts = read_object(index).get('weight_map')
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


def read_object(path: Path, *, most: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Read a JSON object; ValueError for anything else, or for one that is too large."""
    _check_size(path, most)
    try:
        value = json.loads(path.read_text())
    except ValueError as error:  # bytes that are no text, too
        raise ValueError(f'{path} is no JSON: {error}') from error
    except RecursionError as error:
        raise ValueError(f'{path} is nested too deeply') from error
    if not isinstance(value, dict):
        raise ValueError(f'{path} holds no JSON object')
    return value


def _check_file(path: Path) -> None:
    """Refuse a named pipe, which would be waited for, and a device, which may never end."""
    if path.exists() and not path.is_file():
        raise ValueError(f'{path} is no regular file')


def _check_size(path: Path, most: int) -> None:
    _check_file(path)
    size = path.stat().st_size
    if size > most:
        raise ValueError(f'{path} has {size / 1e6:.0f} MB, of at most {most / 1e6:.0f}')
