"""What users can mend is told in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError
import typer

from llm_mde_train.trainer import DivergenceError


@contextmanager
def sentences_for_errors() -> Iterator[None]:
    """End the command with a sentence instead of a traceback for what users can mend."""
    # Not for RuntimeError: torch's own, as out of memory, are found by their traceback.
    try:
        yield
    except (ValueError, OSError, DivergenceError, SafetensorError) as error:  # a full disk, too
        typer.secho(f'Error: {error}', fg='red', err=True)
        raise typer.Exit(1) from error
