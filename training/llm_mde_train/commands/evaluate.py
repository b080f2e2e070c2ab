"""`llm-mde-train evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table
import typer

from llm_mde_core import DepthEstimator
from llm_mde_train.commands.errors import sentences_for_errors
from llm_mde_train.evaluate import Scores, evaluate_constant, median_depth_m
from llm_mde_train.evaluate import evaluate as judge
from llm_mde_train.folders import read_index
from llm_mde_train.metrics import METRICS


def evaluate(
    index: Annotated[
        Path, typer.Option(help='index.csv of real frames', exists=True, dir_okay=False)
    ],
    sets: Annotated[str, typer.Option(help='comma-separated sets of the index')],
    model: Annotated[str, typer.Option(help='bundled name or model folder')] = 'tiny',
    adapter: Annotated[Path | None, typer.Option(help='peft adapter folder')] = None,
    leave_out: Annotated[str, typer.Option(help='comma-separated scenes to leave out')] = '',
    constant_from: Annotated[
        str,
        typer.Option(
            help='sets whose median depth is the constant baseline; default: the judged sets'
        ),
    ] = '',
    crop: Annotated[
        str, typer.Option(help="pixels to judge: none (all) or eigen (the usual part of NYU's)")
    ] = 'none',
    device: str = 'auto',
    json_path: Annotated[
        Path | None, typer.Option('--json', help='write the figures here')
    ] = None,
) -> None:
    """Judge a model on real frames, in metres, per scene."""
    with sentences_for_errors():
        left_out = _names(leave_out)
        samples = [s for s in read_index(index, sets=_names(sets)) if s.scene not in left_out]
        known = read_index(index, sets=_names(constant_from)) if constant_from else samples
        constant_m = median_depth_m(known, crop=crop)
        constant = evaluate_constant(constant_m, samples, crop=crop)
        estimator = DepthEstimator.from_pretrained(model, adapter=adapter, device=device)
        scenes = judge(estimator, samples, crop=crop)
    Console().print(
        _table(scenes, constant, title=f'{model} on {sets}, metres'),
        f'constant: {constant_m:.2f} m everywhere',
    )
    if json_path is not None:
        report = {
            'model': model,
            'sets': _names(sets),
            'crop': crop,
            'scenes': scenes,
            'constant_m': constant_m,
            'constant': constant,
        }
        json_path.write_text(json.dumps(report, indent=2))


def _table(scenes: Scores, constant: Scores, *, title: str) -> Table:
    table = Table('scene', *METRICS, 'constant abs_rel', title=title)
    for scene, values in scenes.items():
        figures = [*(values[name] for name in METRICS), constant[scene]['abs_rel']]
        table.add_row(scene, *(f'{figure:.3f}' for figure in figures))
    return table


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(',') if name.strip()]
