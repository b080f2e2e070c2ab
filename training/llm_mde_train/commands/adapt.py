"""`llm-mde-train adapt`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
import typer

from llm_mde_train import adapt_report
from llm_mde_train.adapt import Notify
from llm_mde_train.adapt import adapt as run_adapt
from llm_mde_train.adapted_parts import TRAIN_CHOICES
from llm_mde_train.commands.errors import sentences_for_errors
from llm_mde_train.commands.options import Bag, Index, MaxDepth, Topic
from llm_mde_train.few_shot_trainer import Tuning
from llm_mde_train.folders import read_index
from llm_mde_train.nyu import read_nyu
from llm_mde_train.rosbag_frames import read_bag
from llm_mde_train.samples import Frame

NOT_WORTHWHILE = 3  # exit status


def adapt(
    out: Annotated[Path, typer.Option(help='folder for the adapter and its report')],
    bag: Bag = None,
    color_topic: Topic = '',
    depth_topic: Topic = '',
    info_topic: Topic = '',
    max_depth: MaxDepth = 10.0,
    index: Index = None,
    set_name: Annotated[str, typer.Option('--set', help='set of the index')] = '',
    shots: Annotated[int, typer.Option(help='frames to learn from', min=1)] = 16,
    nyu: Annotated[
        Path | None,
        typer.Option(help='labelled NYU .mat to replay, instead of rendered rooms'),
    ] = None,
    model: Annotated[str, typer.Option(help='bundled name or model folder')] = 'tiny',
    train: Annotated[
        str, typer.Option(help=f'what may change: {", ".join(TRAIN_CHOICES)}')
    ] = TRAIN_CHOICES[0],
    minutes: Annotated[
        float, typer.Option(help='longest training; judging before and after comes on top')
    ] = Tuning.minutes,
    accept_worse: Annotated[
        bool, typer.Option('--accept-worse', help='exit with 0 although a baseline is better')
    ] = False,
    seed: int = 0,
    device: str = 'auto',
) -> None:
    """Adapt a model to a room by a few frames with depth, and say whether that was worth it."""
    console = Console()
    with sentences_for_errors():
        if (bag is None) == (index is None):
            raise ValueError('say where the frames are: either --bag, or --index with --set')
        if bag is not None:
            found = read_bag(
                bag,
                color_topic=color_topic,
                depth_topic=depth_topic,
                info_topic=info_topic,
                max_depth_m=max_depth,
            )
            console.print(found.summary(), soft_wrap=True, highlight=False)
            frames: list[Frame] = list(found.frames)
            recording = bag.resolve().name
        else:
            frames = _set_of(index, set_name)
            recording = f'{index.name}, set {set_name}'
        with _progress(console) as notify:
            result = run_adapt(
                frames,
                out=out,
                model=model,
                train=train,
                shots=shots,
                replay=None if nyu is None else list(read_nyu(nyu, split='train')),
                recording=recording,
                tuning=Tuning(minutes=minutes),
                seed=seed,
                device=device,
                notify=notify,
            )
        adapt_report.write(result, out)
    console.print(adapt_report.terminal_table(result))
    for sentence in adapt_report.remarks(result):
        console.print(sentence, soft_wrap=True, highlight=False)
    console.print(f'The adapter and report.html are in {out}', soft_wrap=True, highlight=False)
    if not (result.worthwhile or accept_worse):
        raise typer.Exit(NOT_WORTHWHILE)


def _set_of(index: Path, name: str) -> list[Frame]:
    if not name:
        raise ValueError(f'say which set of {index} shows the room, with --set')
    return list(read_index(index, sets=[name]))


@contextmanager
def _progress(console: Console) -> Iterator[Notify]:
    """Show what is being done and a bar for the part of it that is done; lines in a log file."""
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (
        TextColumn('{task.description}'),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task('', total=1.0)

        def notify(what: str, done: float) -> None:
            bar.update(task, description=what, completed=done)

        yield notify


def _lines(console: Console) -> Notify:
    """Return what prints a line for every quarter of what is being done."""
    said = (-1, '')

    def notify(what: str, done: float) -> None:
        nonlocal said
        name = what.split(',')[0]  # the figure after it changes all the time
        if (int(4 * done), name) != said:
            said = (int(4 * done), name)
            console.print(f'{done:4.0%} {what}', soft_wrap=True, highlight=False)

    return notify
