"""`llm-mde-train ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from accelerate import PartialState
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
import typer

from llm_mde_train.ablate import Worth
from llm_mde_train.ablate import ablate as run_ablation
from llm_mde_train.commands.errors import sentences_for_errors
from llm_mde_train.commands.options import Index, LabelledNyu
from llm_mde_train.commands.recipes import read_recipe


def ablate(
    recipe: Annotated[
        Path, typer.Option(help='YAML recipe with a preset', exists=True, dir_okay=False)
    ],
    out: Annotated[Path, typer.Option(help='folder for the runs')] = Path('runs/ablate'),
    seeds: Annotated[int, typer.Option(help='runs of every variant')] = 1,
    index: Index = None,
    nyu: LabelledNyu = None,
) -> None:
    """Train variants of a recipe, each without one part, and compare them."""
    with sentences_for_errors():
        chosen = read_recipe(recipe, index=index, nyu=nyu)
        found = run_ablation(chosen, out, seeds=seeds)
    if PartialState().is_main_process:
        Console().print(_table(found, seeds=seeds, steps=chosen.steps))
        print(f'every figure: {out / "ablation.json"}')


def _table(found: list[Worth], *, seeds: int, steps: int) -> Table:
    mean = f'mean of {seeds} seeds' if seeds > 1 else 'one seed'
    caption = f'best validation within {steps} steps, {mean}'
    table = Table(caption=caption, box=SIMPLE)
    for column in ('variant', 'abs_rel', '±', 'delta1', 'weights', 'trained', 's/step'):
        table.add_column(column, justify='left' if column == 'variant' else 'right')
    for worth in found:
        table.add_row(
            worth.variant,
            f'{worth.mean("abs_rel"):.3f}',
            f'{worth.deviation("abs_rel"):.3f}' if seeds > 1 else '–',
            f'{worth.mean("delta1"):.3f}',
            f'{worth.parameters / 1e6:.2f} M',
            f'{worth.trained / 1e6:.2f} M',
            f'{worth.step_s:.2f}',
        )
    return table
