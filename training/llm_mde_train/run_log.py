"""The story of a run while it is going on: JSON lines, TensorBoard and a progress bar."""

from __future__ import annotations

from collections.abc import Sequence
import json
from pathlib import Path
import time
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
import torch
from torch.utils.tensorboard import SummaryWriter

from llm_mde_core import DepthEstimator
from llm_mde_train.evaluate import Scores
from llm_mde_train.report import color_depth
from llm_mde_train.samples import Frame

LOG_EVERY = 10  # steps
PICTURES = 6  # of the validation frames, at equal distances
PICTURE_HEIGHT_PX = 160


class RunLog:
    """Writes what happens in a run; one process of it does."""

    def __init__(self, folder: Path, *, steps: int, done: int, best: dict[str, Any]) -> None:
        self._file = (folder / 'log.jsonl').open('a', encoding='utf-8')
        # What a killed run wrote after its last validation is done, and shown, again.
        self._board = SummaryWriter(str(folder / 'tensorboard'), purge_step=done + 1)
        self._bar = Progress(
            TextColumn('{task.description}'),
            BarColumn(),
            TextColumn('{task.completed}/{task.total}'),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn('{task.fields[note]}'),
        )
        self._task = self._bar.add_task('fit', total=steps, completed=done, note='')
        self._steps = steps
        self._best = best
        self._loss = float('nan')

    def __enter__(self) -> RunLog:
        self._bar.start()
        self._show()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._board.close()
        self._file.close()

    def step(
        self, step: int, losses: dict[str, torch.Tensor], *, rate: float, started: float
    ) -> None:
        """
        Count a step that began at `started` on time.perf_counter.

        Every tenth and the last are written down.
        """
        self._bar.advance(self._task)
        if step % LOG_EVERY and step != self._steps:
            return
        values = {name: loss.item() for name, loss in losses.items()}
        self._write({'step': step, 's': time.perf_counter() - started} | values)
        for name, value in values.items():
            self._board.add_scalar(f'loss/{name}', value, step)
        self._board.add_scalar('learning_rate', rate, step)
        self._loss = values['loss']
        self._show()

    def validation(self, step: int, scores: Scores, *, best: dict[str, Any]) -> None:
        """Write the scores of every scene."""
        self._best = best
        self._show()
        self._write({'step': step, 'validation': scores})
        for scene, values in scores.items():
            for name, value in values.items():
                self._board.add_scalar(f'{name}/{scene}', value, step)

    def pictures(self, step: int, estimator: DepthEstimator, frames: Sequence[Frame]) -> None:
        """Show colour, truth and prediction of some frames, depths in the same colours."""
        chosen = np.linspace(0, len(frames) - 1, min(PICTURES, len(frames))).round().astype(int)
        for number in chosen:
            sample = frames[number].load()
            depths = (sample.depth_m, estimator.infer(sample.rgb, sample.camera).depth_m)
            known = sample.depth_m[np.isfinite(sample.depth_m)]
            far = float(np.quantile(known, 0.98)) if len(known) else sample.max_depth_m
            row = [sample.rgb, *(color_depth(d, min_m=0.0, max_m=far) for d in depths)]
            self._board.add_image(
                f'{sample.scene}/{number}', _side_by_side(row), step, dataformats='HWC'
            )

    def _show(self) -> None:
        best = self._best.get('abs_rel', float('nan'))
        note = f'loss {self._loss:.3f}, best abs_rel {best:.3f}'
        self._bar.update(self._task, note=note)
        if not self._bar.console.is_terminal:  # in a log file: a line now and then
            task = self._bar.tasks[self._task]
            left_s = '' if task.time_remaining is None else f', {task.time_remaining:.0f} s left'
            print(f'step {task.completed:.0f} of {self._steps}: {note}{left_s}', flush=True)

    def _write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row) + '\n')
        self._file.flush()


def _side_by_side(pictures: list[np.ndarray]) -> np.ndarray:
    height, width = pictures[0].shape[:2]
    size = (max(1, round(width * PICTURE_HEIGHT_PX / height)), PICTURE_HEIGHT_PX)
    return np.hstack([cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in pictures])
