"""`llm-mde-train fit`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from accelerate import PartialState
import typer

from llm_mde_train.commands.errors import sentences_for_errors
from llm_mde_train.fit import fit as run_fit
from llm_mde_train.recipe import Recipe


def fit(
    recipe: Annotated[Path, typer.Argument(help='YAML recipe', exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help='folder for the run')] = Path('runs/fit'),
    index: Annotated[
        Path | None, typer.Option(help='index.csv of real frames', exists=True, dir_okay=False)
    ] = None,
) -> None:
    """Train a model from a recipe; a run that was stopped goes on where it was."""
    with sentences_for_errors():
        chosen = Recipe.read(recipe)
        if index is not None:
            chosen = replace(chosen, index=str(index))
        if chosen.sets and not chosen.index:
            raise ValueError(f'the recipe trains on {chosen.sets}: say where with --index')
        best = run_fit(chosen, out)
    if PartialState().is_main_process:
        print(f'best model in {out / "model"}: abs_rel {best["abs_rel"]:.3f} on validation frames')
