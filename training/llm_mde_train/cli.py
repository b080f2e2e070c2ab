"""The command `llm-mde-train`."""

from __future__ import annotations

from transformers.utils.logging import disable_progress_bar
import typer

from llm_mde_train.commands.ablate import ablate
from llm_mde_train.commands.adapt import adapt
from llm_mde_train.commands.calibrate import calibrate
from llm_mde_train.commands.evaluate import evaluate
from llm_mde_train.commands.fit import fit
from llm_mde_train.commands.probe import probe

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help='Train and judge LLM-MDE depth models.'
)
app.command()(fit)
app.command()(adapt)
app.command()(evaluate)
app.command()(ablate)
app.command()(calibrate)
app.command()(probe)


def main() -> None:
    """Run the command line."""
    disable_progress_bar()  # of reading and writing weights; the commands show their own
    app()
