"""`llm-mde-train fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from accelerate import PartialState
import typer

from llm_mde_train.commands.errors import sentences_for_errors
from llm_mde_train.commands.options import Index, LabelledNyu
from llm_mde_train.commands.recipes import read_recipe
from llm_mde_train.fit import fit as run_fit


def fit(
    recipe: Annotated[Path, typer.Argument(help='YAML recipe', exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help='folder for the run')] = Path('runs/fit'),
    index: Index = None,
    nyu: LabelledNyu = None,
) -> None:
    """Train a model from a recipe; a run that was stopped goes on where it was."""
    with sentences_for_errors():
        chosen = read_recipe(recipe, index=index, nyu=nyu)
        best = run_fit(chosen, out)
    if PartialState().is_main_process:
        print(f'best model in {out / "model"}: abs_rel {best["abs_rel"]:.3f} on validation frames')
