"""Options that several commands share, so that they are called and explained alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Index = Annotated[
    Path | None, typer.Option(help='index.csv of real frames', exists=True, dir_okay=False)
]
LabelledNyu = Annotated[
    Path | None, typer.Option(help='nyu_depth_v2_labeled.mat, splits.mat beside it')
]
Bag = Annotated[Path | None, typer.Option(help='bag with colour and depth', exists=True)]
Topic = Annotated[str, typer.Option(help='for a bag with several')]
MaxDepth = Annotated[float, typer.Option(help="metres up to which the bag's depth can be trusted")]
