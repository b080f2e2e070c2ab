"""
The folder of a training run: its recipe, its log, and the state from which it can go on.

    recipe.json   what was asked for, and the commit that did it
    log.jsonl     losses and validations
    last/state.safetensors   as of the last validation; what is no tensor is JSON in its header
    model/  adapter/  best.json   the best so far
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, Any

from safetensors import safe_open
from safetensors.torch import save_file

from llm_mde_train.trainer import Trainer


class RunFolder:
    """Files of one run, which can go on from its last validation when it was killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._state = folder / 'last' / 'state.safetensors'
        self._log = folder / 'log.jsonl'

    def claim(self, recipe: dict[str, Any], *, commit: str) -> None:
        """Write the recipe down; ValueError when the folder holds a run of another recipe."""
        path = self.folder / 'recipe.json'
        recipe = json.loads(json.dumps(recipe))  # as it reads back
        if path.exists():
            there = json.loads(path.read_text(encoding='utf-8'))
            other = [name for name in recipe if there.get(name) != recipe[name]]
            if other:
                raise ValueError(
                    f'{self.folder} holds a run of another recipe ({", ".join(other)} differ): '
                    'choose another folder, or remove that one'
                )
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix('.new')
        beside.write_text(json.dumps(recipe | {'commit': commit}, indent=2), encoding='utf-8')
        beside.replace(path)

    def log(self) -> IO[str]:
        """Open the log to go on with it."""
        return self._log.open('a', encoding='utf-8')

    def save(self, trainer: Trainer, *, step: int, best: dict[str, Any]) -> None:
        """Write all that the run needs to go on after `step` batches, in one atomic move."""
        self._state.parent.mkdir(exist_ok=True)
        tensors, rest = trainer.state()
        rest |= {'step': step, 'best': best, 'log_bytes': self._log.stat().st_size}
        beside = self._state.with_suffix('.new')
        tensors = {name: value.contiguous() for name, value in tensors.items()}
        save_file(tensors, beside, metadata={'state': json.dumps(rest)})
        beside.replace(self._state)

    def resume(self, trainer: Trainer) -> tuple[int, dict[str, Any]]:
        """
        Bring the trainer and the log to where the run was last saved.

        Returns how many batches it has learnt from and its best metrics, empty at the start.
        """
        step, best, log_bytes = 0, {}, 0
        if self._state.exists():
            with safe_open(self._state, framework='pt') as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                rest = json.loads(file.metadata()['state'])
            trainer.load_state(tensors, rest)
            step, best, log_bytes = rest['step'], rest['best'], rest['log_bytes']
        self._log.touch()
        os.truncate(self._log, log_bytes)  # what came after is done again
        return step, best
