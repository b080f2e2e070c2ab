"""`llm-mde-train calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm_mde_core import DepthEstimator
from llm_mde_core.model_files import find_model
from llm_mde_train.calibration import fit_spread, spread_counts, write_spread_factor
from llm_mde_train.commands.errors import sentences_for_errors
from llm_mde_train.folders import read_index


def calibrate(
    model: Annotated[str, typer.Argument(help='bundled name or model folder')],
    index: Annotated[
        Path, typer.Option(help='index.csv of real frames', exists=True, dir_okay=False)
    ],
    sets: Annotated[str, typer.Option(help='comma-separated sets that taught nothing')] = '',
    write: Annotated[bool, typer.Option(help='put the factor into config.json')] = False,
    device: str = 'auto',
) -> None:
    """Fit the factor of a model's spread, so that its confidence comes true."""
    with sentences_for_errors():
        folder = Path(find_model(model, allow_download=False))
        names = [name.strip() for name in sets.split(',') if name.strip()]
        frames = read_index(index, sets=names or None)
        estimator = DepthEstimator.from_pretrained(folder, device=device)
        fit = fit_spread(spread_counts(estimator, frames))
        print(
            f'factor {fit.factor:.3f}; calibration error {fit.error_before:.3f} before, '
            f'{fit.error_after:.3f} after, {fit.error_left_out:.3f} in scenes left out'
        )
        if not fit.helps:
            print('In scenes that it has not seen, this factor is not expected to help.')
        if write:
            factor = write_spread_factor(folder, fit.factor)
            print(f'spread_factor is {factor:.3f} in {folder / "config.json"}')
