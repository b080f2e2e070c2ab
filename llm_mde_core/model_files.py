"""Which files of a model are read: safetensors, JSON and text; never a pickle, never code."""

from __future__ import annotations

import json
from pathlib import Path


def check_model_folder(folder: str | Path) -> None:
    """
    Raise ValueError unless every part of the weights is a safetensors file of this folder.

    An index (`model.safetensors.index.json`) may name its parts as it likes, and transformers
    would hand a part of another kind to torch.load.
    """
    for index in sorted(Path(folder).glob('*.index.json')):
        try:
            parts = set(json.loads(index.read_text())['weight_map'].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f'{index} is no index of weights: {error!r}') from error
        for part in sorted(map(str, parts)):
            if not part.endswith('.safetensors') or Path(part).name != part:
                raise ValueError(
                    f'{index} names {part!r} as a part of the weights: only safetensors files '
                    'of the same folder are read'
                )
