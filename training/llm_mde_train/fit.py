"""Train a model from a recipe; validation picks the checkpoint."""

from __future__ import annotations

from dataclasses import asdict
import json
from pathlib import Path
import subprocess
import time
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
import torch
from torch.utils.data import DataLoader

from llm_mde_core import DepthEstimator, LLMMDEConfig, LLMMDEForDepthEstimation
from llm_mde_core.estimator import find_model
from llm_mde_train.batches import MixedBatches, rendered_samples
from llm_mde_train.evaluate import evaluate
from llm_mde_train.folders import read_index
from llm_mde_train.recipe import Recipe
from llm_mde_train.run_folder import RunFolder
from llm_mde_train.samples import Frame, split_by_time
from llm_mde_train.tokenizer import train_tokenizer
from llm_mde_train.trainer import Trainer

VALIDATION_SEED = 987_654_321
HELD_OUT_PART = 0.15  # the last part of every recording picks the checkpoint
LOG_EVERY = 10  # steps


def fit(recipe: Recipe, out: Path) -> dict[str, Any]:
    """
    Train, write the best model to `out/model` and the story of the run beside it.

    A run that was stopped goes on from its last validation, to the same end. Returns the best
    validation metrics and their step. Raises ValueError for a recipe without anything to
    validate on or other than that of the run in `out`, RuntimeError when training diverges.
    """
    torch.manual_seed(recipe.seed)
    training, validation = _real_samples(recipe)
    validation += rendered_samples(VALIDATION_SEED, recipe.validation_rooms)
    if not validation:
        raise ValueError('nothing to validate on: give validation_rooms or sets of real frames')
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    trainer = Trainer(_start_model(recipe).to(device), recipe)
    folder = RunFolder(out)
    folder.claim(asdict(recipe), commit=_commit())
    done, best = folder.resume(trainer)
    loader = _loader(recipe, training, trainer.model.config, start=done)

    with _progress() as bar, folder.log() as log:
        task = bar.add_task('fit', total=recipe.steps, completed=done, note='')
        for step, batch in zip(range(done + 1, recipe.steps + 1), loader, strict=False):
            started = time.perf_counter()
            losses = trainer.step(batch)
            if step % LOG_EVERY == 0:
                row = {name: loss.item() for name, loss in losses.items()}
                _write(log, {'step': step, 's': time.perf_counter() - started} | row)
                shown = best.get('abs_rel', float('nan'))
                bar.update(task, note=f'loss {row["loss"]:.3f}, best abs_rel {shown:.3f}')
            if step % recipe.validate_every == 0 or step == recipe.steps:
                model = trainer.averaged()
                estimator = DepthEstimator(model, device=str(device), precision='fp32')
                metrics = evaluate(estimator, validation)
                _write(log, {'step': step, 'validation': metrics})
                if metrics['mean']['abs_rel'] < best.get('abs_rel', float('inf')):
                    best = metrics['mean'] | {'step': step}
                    trainer.save(model, out)
                folder.save(trainer, step=step, best=best)
            bar.advance(task)
    if not best:
        raise RuntimeError(f'no validation gave a finite abs_rel: see {out / "log.jsonl"}')
    (out / 'best.json').write_text(json.dumps(best, indent=2))
    return best


def _start_model(recipe: Recipe) -> LLMMDEForDepthEstimation:
    if recipe.start_from:
        folder = find_model(recipe.start_from, allow_download=False)
        model = LLMMDEForDepthEstimation.from_pretrained(folder)
    else:
        config = LLMMDEConfig.from_preset(recipe.preset, **recipe.overrides)
        tokenizer = None
        if not config.language_name and config.language != 'none':
            tokenizer = train_tokenizer(vocab_size=config.language_config.vocab_size)
        model = LLMMDEForDepthEstimation.create(config, tokenizer)
    seen = [getattr(model.config, 'training_data', ''), recipe.training_data]
    model.config.training_data = '; then '.join(data for data in seen if data)
    if recipe.weights_license:
        model.config.weights_license = recipe.weights_license
    return model


def _real_samples(recipe: Recipe) -> tuple[list[Frame], list[Frame]]:
    if not recipe.index:
        return [], []
    samples = read_index(Path(recipe.index), sets=recipe.sets)
    return split_by_time(samples, HELD_OUT_PART)


def _loader(
    recipe: Recipe, real: list[Frame], config: LLMMDEConfig, *, start: int = 0
) -> DataLoader:
    batches = MixedBatches(
        real,
        seed=recipe.seed,
        batch_size=recipe.batch_size,
        image_size=config.image_size,
        canonical_focal_px=config.canonical_focal_px,
        patch_px=config.patch_px,
        real_fraction=recipe.real_fraction,
        reuse=recipe.reuse,
        first_image_size=recipe.first_image_size,
        first_steps=recipe.first_steps,
        start=start,
    )
    ahead = 4 if recipe.workers else None
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=recipe.workers,
        prefetch_factor=ahead,
        generator=torch.Generator(),  # else it would draw from the random state of the model
    )


def _progress() -> Progress:
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        TextColumn('{task.completed}/{task.total}'),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn('{task.fields[note]}'),
    )


def _write(log: Any, row: dict[str, Any]) -> None:
    log.write(json.dumps(row) + '\n')
    log.flush()


def _commit() -> str:
    try:
        return subprocess.run(
            ['git', 'rev-parse', 'HEAD'],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'  # installed without its repository
