"""What users can mend is told in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def sentences_for_errors() -> Iterator[None]:
    """End the command with a sentence instead of a traceback for what users can mend."""
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        typer.secho(f'Error: {error}', fg='red', err=True)
        raise typer.Exit(1) from error
