"""
The folder of a training run: what made it, its log, and the state from which it can go on.

    recipe.json   what was asked for
    made_by.json  the commit that did it, weights and data that it had, processes that shared it
    log.jsonl     losses and validations, in tensorboard/ too
    last/state.safetensors   as of the last validation; what is no tensor is JSON in its header
    model/  adapter/  best.json   the best of what is saved
    best_STEP.new/   a better model, until the state that says so is saved
"""

from __future__ import annotations

import json
import os
from pathlib import Path
import shutil
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
import torch

from llm_mde_train.run_log import RunLog
from llm_mde_train.trainer import Trainer
from llm_mde_train.whole_files import write_whole


class RunFolder:
    """Files of one run, which can go on from its last validation when it was killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._state = folder / 'last' / 'state.safetensors'
        self._log = folder / 'log.jsonl'

    def claim(self, *, recipe: dict[str, Any], made_by: dict[str, Any]) -> None:
        """
        Write down what makes the run.

        Raises ValueError when the folder holds a run of another recipe, or made by something
        else, which would not end as it would have. The commit may differ; all are named.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._keep('recipe.json', recipe, differ='another recipe')
        self._keep('made_by.json', made_by, differ='other data, weights or processes')

    def _keep(self, name: str, values: dict[str, Any], *, differ: str) -> None:
        path = self.folder / name
        values = json.loads(json.dumps(values))  # as it reads back
        if not path.exists():
            write_whole(path, json.dumps(values, indent=2))
            return
        there = json.loads(path.read_text(encoding='utf-8'))
        other = [key for key in values if there.get(key) != values[key] and key != 'commit']
        if other:
            raise ValueError(
                f'{self.folder} holds a run of {differ} ({", ".join(other)} differ): '
                'choose another folder, or remove that one'
            )
        commit = values.get('commit')
        if commit and commit not in there['commit'].split(', '):
            there['commit'] += f', {commit}'
            write_whole(path, json.dumps(there, indent=2))

    def save(
        self,
        tensors: dict[str, torch.Tensor],
        rest: dict[str, Any],
        *,
        step: int,
        best: dict[str, Any],
    ) -> None:
        """Write a trainer's state after `step` batches, in one move; then its best model."""
        self._state.parent.mkdir(exist_ok=True)
        rest = rest | {'step': step, 'best': best, 'log_bytes': self._log.stat().st_size}
        beside = self._state.with_suffix('.new')
        tensors = {name: value.contiguous() for name, value in tensors.items()}
        save_file(tensors, beside, metadata={'state': json.dumps(rest)})
        beside.replace(self._state)
        self._settle(best)

    def better_model(self, step: int) -> Path:
        """Return where to put a model that is the best, until the state of that step is saved."""
        return self.folder / f'best_{step}.new'

    def _settle(self, best: dict[str, Any]) -> None:
        """Put the best model of the saved state in place, forget others that a kill left."""
        for beside in self.folder.glob('best_*.new'):
            if best and beside == self.better_model(best['step']):
                for part in beside.iterdir():  # model/ and with LoRA adapter/
                    place = self.folder / part.name
                    if place.exists():
                        place.rename(place.with_suffix('.old'))
                    part.rename(place)
            shutil.rmtree(beside)
        for old in self.folder.glob('*.old'):
            shutil.rmtree(old)

    def resume(self, trainer: Trainer) -> tuple[int, dict[str, Any]]:
        """
        Bring the trainer to where the run was last saved.

        Returns how many batches it has learnt from and its best metrics, empty at the start.
        """
        if not self._state.exists():
            return 0, {}
        with safe_open(self._state, framework='pt') as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        rest = self._rest()
        trainer.load_state(tensors, rest)
        return rest['step'], rest['best']

    def log(self, *, steps: int) -> RunLog:
        """Open the log to go on with it; what came after the last save is done again."""
        rest = self._rest() if self._state.exists() else {'step': 0, 'best': {}, 'log_bytes': 0}
        self._log.touch()
        os.truncate(self._log, rest['log_bytes'])
        self._settle(rest['best'])
        return RunLog(self.folder, steps=steps, done=rest['step'], best=rest['best'])

    def _rest(self) -> dict[str, Any]:
        with safe_open(self._state, framework='pt') as file:
            return dict(json.loads(file.metadata()['state']))
