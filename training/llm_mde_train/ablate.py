"""What each part of the network is worth: variants of one recipe, trained under equal budgets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
import json
from pathlib import Path
from typing import Any

import numpy as np

from llm_mde_core import LLMMDEConfig, LLMMDEForDepthEstimation
from llm_mde_core.lora import count_trainable
from llm_mde_train.fit import fit, join_processes
from llm_mde_train.recipe import Recipe
from llm_mde_train.whole_files import write_whole

NO_LORA = {'lora_vision_rank': 0, 'lora_language_rank': 0}


@dataclass(frozen=True)
class Worth:
    """What a variant reached: validation metrics of each seed, sizes, time."""

    variant: str
    metrics: list[dict[str, float]]  # the best validation of each seed
    parameters: int
    trained: int
    step_s: float  # median time of a step, without waiting for data

    def mean(self, name: str) -> float:
        """Return a metric's mean over the seeds."""
        return float(np.mean([metrics[name] for metrics in self.metrics]))

    def deviation(self, name: str) -> float:
        """Return a metric's standard deviation over the seeds, NaN for one seed."""
        values = [metrics[name] for metrics in self.metrics]
        return float(np.std(values, ddof=1)) if len(values) > 1 else float('nan')


def variants(recipe: Recipe) -> dict[str, Recipe]:
    """
    Return the recipe under 'full' and, under their names, copies that lack one thing each.

    What the recipe does not have is left out: without LoRA nothing can be without it. Raises
    ValueError for a recipe that goes on from a model, whose parts cannot be exchanged.
    """
    if recipe.start_from:
        raise ValueError(
            f'an ablation trains from the start: {recipe.start_from!r} has its parts already; '
            'give a recipe with a preset'
        )
    config = LLMMDEConfig.from_preset(recipe.preset, **recipe.overrides)
    if config.language == 'none':
        raise ValueError('the recipe has no language model: there is little to ablate')
    unfrozen = [part for part in recipe.frozen if part != 'language']
    unread = {part: name for part, name in recipe.parts_from.items() if part != 'language'}
    mute = replace(recipe, frozen=unfrozen, parts_from=unread)
    chosen = {'full': recipe, 'no language model': _override(mute, language='none')}
    if config.language == 'pretrained' or 'language' in recipe.parts_from:
        forgetful = replace(recipe, parts_from=unread)
        chosen['random language model'] = _override(forgetful, language='random')
    elif recipe.train == 'all' and 'language' not in recipe.frozen:
        frozen = replace(recipe, frozen=[*recipe.frozen, 'language'])
        chosen['frozen language model'] = frozen
    for prompt in ('fixed', 'shuffled'):
        chosen[f'{prompt} prompt'] = _override(recipe, prompt=prompt)
    if recipe.train == 'lora':
        chosen['no LoRA'] = _override(recipe, **NO_LORA)
    chosen['value = key'] = _override(recipe, value_is_key=True)
    return chosen


def ablate(recipe: Recipe, out: Path, *, seeds: int = 1) -> list[Worth]:
    """
    Train every variant with as many seeds, each in a folder of `out`, and compare them.

    Data, order of the data, steps and validation are the same for all variants of a seed. What
    was trained before goes on where it was. Writes `out/ablation.json`; raises what `fit` does
    and ValueError for no seeds.
    """
    if seeds < 1:
        raise ValueError(f'an ablation needs at least one seed, not {seeds}')
    chosen, found, processes = variants(recipe), [], join_processes()
    for number, (name, variant) in enumerate(chosen.items(), start=1):
        processes.print(f'{number} of {len(chosen)}: {name}')
        folders = [out / _folder(name) / f'seed_{seed}' for seed in range(seeds)]
        metrics = [
            fit(replace(variant, seed=recipe.seed + seed), folder)
            for seed, folder in enumerate(folders)
        ]
        found.append(_worth(name, variant, metrics, folders))
    if processes.is_main_process:
        report = {'recipe': asdict(recipe), 'variants': [asdict(worth) for worth in found]}
        write_whole(out / 'ablation.json', json.dumps(report, indent=2))
    return found


def _worth(name: str, recipe: Recipe, metrics: list[dict[str, Any]], folders: list[Path]) -> Worth:
    model = LLMMDEForDepthEstimation.from_pretrained(folders[0] / 'model')
    parameters = sum(weight.numel() for weight in model.parameters())
    frozen = [weight for part in recipe.frozen for weight in getattr(model, part).parameters()]
    trained = parameters - sum(weight.numel() for weight in frozen)
    if recipe.train == 'lora':
        trained = count_trainable(model)
    times = [
        row['s']
        for folder in folders
        for row in map(json.loads, (folder / 'log.jsonl').read_text().splitlines())
        if 's' in row
    ]
    return Worth(name, metrics, parameters, trained, step_s=float(np.median(times)))


def _override(recipe: Recipe, **changes: Any) -> Recipe:
    return replace(recipe, overrides=recipe.overrides | changes)


def _folder(name: str) -> str:
    return name.replace(' = ', '_is_').replace(' ', '_').lower()
