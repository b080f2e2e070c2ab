"""`llm-mde-train evaluate`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
import json
from pathlib import Path
from typing import Annotated

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
import typer

from llm_mde_core import DepthEstimator
from llm_mde_train.commands.errors import sentences_for_errors
from llm_mde_train.commands.options import Bag, Index, MaxDepth, Topic
from llm_mde_train.evaluation import Evaluation, FrameSet, figures, judge_sets, median_depth_m
from llm_mde_train.evaluation_page import (
    confidence_summary,
    judged_model,
    page,
    summary,
    warning_of_shots,
)
from llm_mde_train.folders import read_index
from llm_mde_train.kitti import read_kitti
from llm_mde_train.metrics import CROPS
from llm_mde_train.nyu import read_nyu
from llm_mde_train.rosbag_frames import read_bag
from llm_mde_train.whole_files import write_whole

COLUMNS = {
    'AbsRel': 'abs_rel',
    'RMSE': 'rmse',
    'δ1': 'delta1',
    'aligned': 'abs_rel_median_aligned',
}


def evaluate(
    model: Annotated[str, typer.Option(help='bundled name or model folder')] = 'tiny',
    adapter: Annotated[Path | None, typer.Option(help='peft adapter folder')] = None,
    index: Index = None,
    sets: Annotated[str, typer.Option(help='comma-separated sets of the index')] = '',
    bag: Bag = None,
    color_topic: Topic = '',
    depth_topic: Topic = '',
    info_topic: Topic = '',
    max_depth: MaxDepth = 10.0,
    nyu: Annotated[
        Path | None, typer.Option(help='nyu_depth_v2_labeled.mat: its official test images')
    ] = None,
    kitti: Annotated[
        Path | None,
        typer.Option(help='list of KITTI pairs as in BTS', exists=True, dir_okay=False),
    ] = None,
    leave_out: Annotated[str, typer.Option(help='comma-separated scenes to leave out')] = '',
    constant_from: Annotated[
        str,
        typer.Option(
            help='sets of the index whose median depth is the constant beside the model; '
            'default: the judged frames'
        ),
    ] = '',
    crop: Annotated[
        str,
        typer.Option(
            help=f'pixels that count: {", ".join(CROPS)}; default: eigen for NYU, garg for KITTI, '
            'else none'
        ),
    ] = '',
    device: str = 'auto',
    json_path: Annotated[
        Path | None, typer.Option('--json', help='write all figures here')
    ] = None,
    html_path: Annotated[
        Path | None, typer.Option('--html', help='write a page with charts and pictures here')
    ] = None,
) -> None:
    """Judge a model on real frames, in metres."""
    console = Console()
    with sentences_for_errors():
        found = _index_sets(index, _names(sets), crop=crop or 'none')
        if bag is not None:
            topics = {'color_topic': color_topic, 'depth_topic': depth_topic}
            read = read_bag(bag, **topics, info_topic=info_topic, max_depth_m=max_depth)
            console.print(read.summary(), soft_wrap=True, highlight=False)
            found.append(FrameSet(bag.resolve().stem, read.frames, crop or 'none'))
        if nyu is not None:
            found.append(FrameSet('nyu', read_nyu(nyu, split='test'), crop or 'eigen'))
        if kitti is not None:
            found.append(FrameSet('kitti', read_kitti(kitti), crop or 'garg'))
        if not found:
            raise ValueError('say what to judge on: --index with --sets, --bag, --nyu or --kitti')
        found = _without(found, _names(leave_out))
        known = _index_sets(index, _names(constant_from), crop=crop or 'none') or found
        estimator = DepthEstimator.from_pretrained(model, adapter=adapter, device=device)
        evaluation = _judge(estimator, found, known=known, adapter=str(adapter or ''))
        if json_path is not None:
            text = json.dumps(figures(evaluation), indent=2, allow_nan=False)
            write_whole(json_path, text)
        if html_path is not None:
            write_whole(html_path, page(evaluation, estimator))
    console.print(_table(evaluation))
    for sentence in (summary(evaluation), confidence_summary(evaluation)):
        console.print(sentence, highlight=False)
    if warning := warning_of_shots(evaluation):
        console.print(f'Warning: {warning}', style='yellow', highlight=False)


def _judge(
    estimator: DepthEstimator, sets: list[FrameSet], *, known: list[FrameSet], adapter: str
) -> Evaluation:
    constant_m = median_depth_m(known)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task('judging', total=sum(len(each.frames) for each in sets))
        return judge_sets(
            estimator,
            sets,
            constant_m=constant_m,
            adapter=adapter,
            notify=lambda: bar.advance(task),
        )


def _index_sets(index: Path | None, names: list[str], *, crop: str) -> list[FrameSet]:
    if names and index is None:
        raise ValueError(f'where are the sets {", ".join(names)}? Give --index')
    if index is None:
        return []
    return [FrameSet(name, read_index(index, sets=[name]), crop) for name in dict.fromkeys(names)]


def _without(sets: list[FrameSet], scenes: list[str]) -> list[FrameSet]:
    known = sorted({frame.scene for each in sets for frame in each.frames})
    for scene in scenes:
        if scene not in known:
            raise ValueError(f'no scene {scene!r} to leave out: there are {", ".join(known)}')
    return [
        replace(each, frames=[frame for frame in each.frames if frame.scene not in scenes])
        for each in sets
    ]


def _table(evaluation: Evaluation) -> Table:
    """Return the main figures of scenes, sets and the mean in 80 columns."""
    table = Table(
        title=escape(f'{judged_model(evaluation)}, metres'),
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column('', max_width=27)
    for name in ('frames', *COLUMNS, 'constant', 'median'):
        table.add_column(name, justify='right')
    rivals = (evaluation.constant_scores, evaluation.flat_scores)
    scenes = Counter(one.frame.scene for one in evaluation.frames)
    for scene, count in sorted(scenes.items()):
        beside = [scores[scene] for scores in rivals]
        _add_row(table, scene, count, evaluation.scores[scene], beside)
    table.add_section()
    if len(evaluation.set_scores) > 1:
        for name, scores in evaluation.set_scores.items():
            _add_row(table, f'set {name}', len(evaluation.judged[name]), scores)
        table.add_section()
    mean, beside = evaluation.scores['mean'], [scores['mean'] for scores in rivals]
    _add_row(table, 'mean over scenes', len(evaluation.frames), mean, beside)
    return table


def _add_row(
    table: Table,
    name: str,
    count: int,
    scores: dict[str, float],
    beside: Sequence[dict[str, float]] = (),
) -> None:
    shown = [scores[metric] for metric in COLUMNS.values()]
    shown += [rival['abs_rel'] for rival in beside]
    table.add_row(name, str(count), *(f'{figure:.3f}' for figure in shown))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(',') if name.strip()]
