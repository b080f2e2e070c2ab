"""Train a model from a recipe; validation picks the checkpoint."""

from __future__ import annotations

from collections.abc import Callable
import copy
from dataclasses import asdict
import json
from pathlib import Path
import subprocess
import time
from typing import Any

from peft import PeftModel
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from llm_mde_core import DepthEstimator, LLMMDEConfig, LLMMDEForDepthEstimation, add_lora
from llm_mde_core.estimator import find_model
from llm_mde_train.batches import Batch, MixedBatches, rendered_samples
from llm_mde_train.evaluate import evaluate
from llm_mde_train.folders import read_index
from llm_mde_train.losses import LossWeights, total_loss
from llm_mde_train.recipe import Recipe
from llm_mde_train.samples import Sample
from llm_mde_train.tokenizer import train_tokenizer

VALIDATION_SEED = 987_654_321
HELD_OUT_PART = 0.15  # the last part of every recording picks the checkpoint
LOG_EVERY = 10  # steps


def fit(recipe: Recipe, out: Path) -> dict[str, Any]:
    """
    Train, write the best model to `out/model` and the story of the run beside it.

    Returns the best validation metrics and their step. Raises ValueError for a recipe without
    anything to validate on, RuntimeError when training diverges.
    """
    torch.manual_seed(recipe.seed)
    training, validation = _real_samples(recipe)
    validation += rendered_samples(VALIDATION_SEED, recipe.validation_rooms)
    if not validation:
        raise ValueError('nothing to validate on: give validation_rooms or sets of real frames')
    out.mkdir(parents=True, exist_ok=True)
    (out / 'recipe.json').write_text(json.dumps(asdict(recipe) | {'commit': _commit()}, indent=2))
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    model = _start_model(recipe)
    loader = _loader(recipe, training, model.config)
    trainer = Trainer(model.to(device), recipe)
    best: dict[str, Any] = {'abs_rel': float('inf')}

    with _progress() as bar, (out / 'log.jsonl').open('w', encoding='utf-8') as log:
        task = bar.add_task('fit', total=recipe.steps, note='')
        for step, batch in zip(range(1, recipe.steps + 1), loader, strict=False):
            started = time.perf_counter()
            losses = trainer.step(batch)
            if step % LOG_EVERY == 0:
                row = {name: loss.item() for name, loss in losses.items()}
                _write(log, {'step': step, 's': time.perf_counter() - started} | row)
                note = f'loss {row["loss"]:.3f}, best abs_rel {best["abs_rel"]:.3f}'
                bar.update(task, note=note)
            if step % recipe.validate_every == 0 or step == recipe.steps:
                model = trainer.averaged()
                estimator = DepthEstimator(model, device=str(device), precision='fp32')
                metrics = evaluate(estimator, validation)
                _write(log, {'step': step, 'validation': metrics})
                if metrics['mean']['abs_rel'] < best['abs_rel']:
                    best = metrics['mean'] | {'step': step}
                    model.save_pretrained(out / 'model')
            bar.advance(task)
    (out / 'best.json').write_text(json.dumps(best, indent=2))
    return best


class Trainer:
    """A model that learns, with its optimiser, schedule and the running mean of its weights."""

    def __init__(self, model: LLMMDEForDepthEstimation, recipe: Recipe) -> None:
        self.device = model.device
        self.canonical_focal_px = model.config.canonical_focal_px
        self.clip_norm = recipe.clip_norm
        self.model = (add_lora(model) if recipe.train == 'lora' else model).train()
        self.trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.trained,
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            betas=(0.9, 0.98),
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(recipe, step)
        )
        self.average = AveragedModel(self.model, multi_avg_fn=_running_mean(recipe.ema_decay))

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Learn from one batch; return its loss and the parts of it."""
        loss, parts = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, self.clip_norm, error_if_nonfinite=True)
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.model)
        return {'loss': loss.detach()} | {name: part.detach() for name, part in parts.items()}

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss of one batch and its parts."""
        pixels = batch.rgb.to(self.device).permute(0, 3, 1, 2).float() / 255.0
        focal_px = batch.focal_px.to(self.device)
        return total_loss(
            self.model(pixel_values=pixels, focal_px=focal_px),
            depth_m=batch.depth_m.to(self.device),
            canonical_ratio=self.canonical_focal_px / focal_px,
            weights=LossWeights(),
        )

    def averaged(self) -> LLMMDEForDepthEstimation:
        """Return a copy with the averaged weights, LoRA folded in; training does not notice."""
        model = copy.deepcopy(self.average.module)
        return model.merge_and_unload() if isinstance(model, PeftModel) else model


def _running_mean(decay: float) -> Callable[[Any, Any, torch.Tensor], None]:
    """Return the update of a running mean that forgets fast at first: it starts at random."""

    def update(mean: Any, weights: Any, count: torch.Tensor) -> None:
        early = (1.0 + int(count)) / (10.0 + int(count))
        get_ema_multi_avg_fn(min(decay, early))(mean, weights, count)

    return update


def learning_rate_factor(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then polynomial decay (power 0.9) to the final rate."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    left = 1.0 - (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    floor = recipe.final_learning_rate / recipe.learning_rate
    return floor + (1.0 - floor) * max(0.0, left) ** 0.9


def split_by_time(samples: list[Sample], held_out: float) -> tuple[list[Sample], list[Sample]]:
    """Split samples, in order of time, into the beginnings and the ends of their scenes."""
    scenes = dict.fromkeys(sample.scene for sample in samples)
    first, last = [], []
    for scene in scenes:
        mine = [sample for sample in samples if sample.scene == scene]
        cut = len(mine) - round(len(mine) * held_out)
        first += mine[:cut]
        last += mine[cut:]
    return first, last


def _start_model(recipe: Recipe) -> LLMMDEForDepthEstimation:
    if recipe.start_from:
        folder = find_model(recipe.start_from, allow_download=False)
        model = LLMMDEForDepthEstimation.from_pretrained(folder)
    else:
        config = LLMMDEConfig.from_preset(recipe.preset)
        tokenizer = None
        if not config.language_name and config.language != 'none':
            tokenizer = train_tokenizer(vocab_size=config.language_config.vocab_size)
        model = LLMMDEForDepthEstimation.create(config, tokenizer)
    seen = [getattr(model.config, 'training_data', ''), recipe.training_data]
    model.config.training_data = '; then '.join(data for data in seen if data)
    model.config.weights_license = recipe.weights_license
    return model


def _real_samples(recipe: Recipe) -> tuple[list[Sample], list[Sample]]:
    if not recipe.index:
        return [], []
    samples = read_index(Path(recipe.index), sets=recipe.sets)
    return split_by_time(samples, HELD_OUT_PART)


def _loader(recipe: Recipe, real: list[Sample], config: LLMMDEConfig) -> DataLoader:
    batches = MixedBatches(
        real,
        seed=recipe.seed,
        batch_size=recipe.batch_size,
        image_size=config.image_size,
        patch_px=config.patch_px,
        real_fraction=recipe.real_fraction,
        reuse=recipe.reuse,
        first_image_size=recipe.first_image_size,
        first_steps=recipe.first_steps,
    )
    ahead = 4 if recipe.workers else None
    return DataLoader(batches, batch_size=None, num_workers=recipe.workers, prefetch_factor=ahead)


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
