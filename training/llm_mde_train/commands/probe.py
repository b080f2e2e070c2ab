"""`llm-mde-train probe`."""

from __future__ import annotations

from typing import Annotated

import typer

from llm_mde_core import DepthEstimator
from llm_mde_train.commands.errors import sentences_for_errors
from llm_mde_train.probes import BLIND, language_change, lens_change


def probe(
    model: Annotated[str, typer.Argument(help='bundled name or model folder')] = 'tiny',
    rooms: Annotated[int, typer.Option(min=1, help='how many to render')] = 40,
    device: str = 'auto',
) -> None:
    """Tell what a model's metres depend on: the lens, and what its language model says."""
    with sentences_for_errors():
        estimator = DepthEstimator.from_pretrained(model, device=device, compile='off')
        change = lens_change(estimator, rooms=rooms)
        print(f'a third longer lens changes the metres by {change:.3f} (blind: {BLIND:.2f})')
        if estimator.model.config.language == 'none':
            print('no language model')
            return
        change = language_change(estimator, rooms=rooms)
        print(f"the language model's mean for every patch changes depth by {change:.1%}")
