"""Train a model from a recipe; validation picks the checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from datetime import timedelta
import json
from pathlib import Path
import time
from typing import Any

from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list
import torch
from torch.utils.data import DataLoader

from llm_mde_core import DepthEstimator, LLMMDEConfig, LLMMDEForDepthEstimation
from llm_mde_core.bench.machine import git_commit
from llm_mde_core.digests import sha256_of
from llm_mde_core.model_files import find_model
from llm_mde_train.batches import MixedBatches, rendered_samples
from llm_mde_train.evaluate import evaluate
from llm_mde_train.recipe import SOURCES, Recipe
from llm_mde_train.run_folder import RunFolder
from llm_mde_train.run_log import RunLog
from llm_mde_train.samples import Frame, split_by_time
from llm_mde_train.shots import spread
from llm_mde_train.sources import fingerprint, training_frames
from llm_mde_train.tokenizer import train_tokenizer
from llm_mde_train.trainer import DivergenceError, Trainer
from llm_mde_train.whole_files import write_whole

VALIDATION_SEED = 987_654_321
HELD_OUT_PART = 0.15  # the last part of every recording picks the checkpoint
PATIENCE = timedelta(hours=6)  # of the processes that wait while the first one validates


def fit(recipe: Recipe, out: Path) -> dict[str, Any]:
    """
    Train, write the best model to `out/model` and the story of the run beside it.

    A run that was stopped goes on from its last validation, to the same end. Started once per
    process by torchrun or `accelerate launch`, the processes share the work; the first one
    validates and writes. Returns the best validation metrics and their step. Raises ValueError
    for a recipe without anything to validate on or other than that of the run in `out`,
    DivergenceError when no validation gave a finite score.
    """
    accelerator = join_processes()
    first = accelerator.is_main_process
    torch.manual_seed(recipe.seed)
    bags: list[str] = []
    training, validation = _real_frames(recipe, told=bags.append)
    if not validation and not recipe.validation_rooms:
        raise ValueError(
            'nothing to validate on: give validation_rooms, or real frames and validation_frames'
        )
    model = _start_model(recipe).to(accelerator.device)
    torch.manual_seed(recipe.seed + accelerator.process_index)
    trainer = Trainer(model, recipe, accelerator)
    folder = RunFolder(out)
    if first:
        made_by = _made_by(recipe, training, validation, accelerator) | {'bags': bags}
        for bag in bags:
            print(bag)
        folder.claim(recipe=asdict(recipe), made_by=made_by)
        validation += rendered_samples(VALIDATION_SEED, recipe.validation_rooms)
    done, best = folder.resume(trainer)
    accelerator.wait_for_everyone()  # nobody reads the state while it is written
    loader = _loader(recipe, training, trainer, start=done)

    with folder.log(steps=recipe.steps) if first else nullcontext() as log:
        for step, batch in zip(range(done + 1, recipe.steps + 1), loader, strict=False):
            rate, started = trainer.schedule.get_last_lr()[0], time.perf_counter()
            losses = trainer.step(batch)
            if log:
                log.step(step, losses, rate=rate, started=started)
            if step % recipe.validate_every == 0 or step == recipe.steps:
                if log:
                    place = folder.better_model(step)
                    best = _validate(trainer, validation, place, step=step, best=best, log=log)
                state = trainer.state()  # of all processes
                if log:
                    folder.save(*state, step=step, best=best)
    broadcast_object_list(found := [best])
    best = found[0]
    if not best:
        raise DivergenceError(f'no validation gave a finite abs_rel: see {out / "log.jsonl"}')
    if first:
        write_whole(out / 'best.json', json.dumps(best, indent=2))
    return best


def join_processes() -> Accelerator:
    """Return this process's place among those that train together; the recipe says how."""
    patient = InitProcessGroupKwargs(timeout=PATIENCE)
    on_cpu = not torch.cuda.is_available()
    return Accelerator(cpu=on_cpu, mixed_precision='no', kwargs_handlers=[patient])


def _made_by(
    recipe: Recipe, training: list[Frame], validation: list[Frame], accelerator: Accelerator
) -> dict[str, Any]:
    return {
        'commit': git_commit(Path(__file__)),
        'start_from_sha256': _sha256_of_model(recipe.start_from) if recipe.start_from else '',
        'parts_from_sha256': {
            part: _sha256_of_model(name) for part, name in recipe.parts_from.items()
        },
        'data': fingerprint([*training, *validation]),
        'training_frames': len(training),
        'validation_frames': len(validation),
        'processes': accelerator.num_processes,
    }


def _sha256_of_model(name: str) -> str:
    return sha256_of([Path(_find_model(name)) / 'model.safetensors'])


def _validate(
    trainer: Trainer,
    frames: list[Frame],
    out: Path,
    *,
    step: int,
    best: dict[str, Any],
    log: RunLog,
) -> dict[str, Any]:
    """Judge the averaged model, put it into `out` when it is the best, and return the best."""
    model = trainer.averaged()
    estimator = DepthEstimator(model, device=str(trainer.device), precision='fp32', compile='off')
    scores = evaluate(estimator, frames)
    log.pictures(step, estimator, frames)
    if scores['mean']['abs_rel'] < best.get('abs_rel', float('inf')):
        best = scores['mean'] | {'step': step}
        trainer.save(model, out)
    log.validation(step, scores, best=best)
    return best


def _start_model(recipe: Recipe) -> LLMMDEForDepthEstimation:
    sources: dict[str, LLMMDEForDepthEstimation] = {}
    if recipe.start_from:
        model = _read_model(recipe.start_from)
    else:
        sources = {part: _read_model(name) for part, name in recipe.parts_from.items()}
        config = LLMMDEConfig.from_preset(recipe.preset, **recipe.overrides)
        tokenizer = sources['language'].tokenizer if 'language' in sources else None
        if tokenizer is None and not config.language_name and config.language != 'none':
            tokenizer = train_tokenizer(vocab_size=config.language_config.vocab_size)
        model = LLMMDEForDepthEstimation.create(config, tokenizer)
        for part, source in sources.items():
            _take_part(model, part, source)
    learnt = [getattr(source.config, 'training_data', '') for source in (model, *sources.values())]
    seen = dict.fromkeys([*learnt, recipe.training_data])  # once, though two parts saw the same
    model.config.training_data = '; then '.join(data for data in seen if data)
    if recipe.weights_license:
        model.config.weights_license = recipe.weights_license
    return model


def _find_model(name: str) -> str:
    """Return the folder of a bundled model or of one that an earlier run has left."""
    if len(Path(name).parts) > 1 and not (Path(name) / 'config.json').is_file():
        raise FileNotFoundError(
            f'the recipe builds on the model {name!r}, which is not there: train it first, or '
            'name where it is'
        )
    return find_model(name, allow_download=False)


def _read_model(name: str) -> LLMMDEForDepthEstimation:
    folder = _find_model(name)
    model = LLMMDEForDepthEstimation.from_pretrained(folder)
    # Adapters name the model they belong to: a bundled one, never a folder of this machine.
    model.name_or_path = name if folder != name else ''
    return model


def _take_part(
    model: LLMMDEForDepthEstimation, part: str, source: LLMMDEForDepthEstimation
) -> None:
    """Copy the weights of a part; ValueError when the two models differ in it."""
    try:
        getattr(model, part).load_state_dict(getattr(source, part).state_dict())
    except (AttributeError, RuntimeError) as error:
        raise ValueError(
            f'parts_from: {part} cannot be taken over, it is built differently: {error}'
        ) from error


def _real_frames(recipe: Recipe, told: Callable[[str], object]) -> tuple[list[Frame], list[Frame]]:
    frames = training_frames(**{name: getattr(recipe, name) for name in SOURCES}, told=told)
    training, held_out = split_by_time(frames, HELD_OUT_PART)
    return training, spread(held_out, recipe.validation_frames)


def _loader(recipe: Recipe, real: list[Frame], trainer: Trainer, *, start: int = 0) -> DataLoader:
    config = trainer.model.config
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
        cut_depth=recipe.cut_depth,
        max_depth_m=config.max_depth_m,
        render_device=recipe.render_device,
        process=trainer.process,
        processes=trainer.processes,
    )
    workers = recipe.workers if recipe.render_device == 'cpu' else 0  # CUDA survives no fork
    ahead = 4 if workers else None
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=ahead,
        generator=torch.Generator(),  # else it would draw from the random state of the model
    )
