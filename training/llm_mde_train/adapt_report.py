"""What an adaptation came to: figures as JSON, a table for the terminal, a page with pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from llm_mde_train import report
from llm_mde_train.adapt import RENDERED, Adaptation
from llm_mde_train.held_out import HeldOut
from llm_mde_train.profiles import DISTANCES_M
from llm_mde_train.whole_files import write_whole

TITLES = {
    'before': 'model before',
    'constant': 'constant (median of the shots)',
    'pixel_median': "each pixel's median of the shots",
    'scale_shift': 'model before, scaled and shifted',
    'after': 'adapted model',
}
ERROR_LIMIT = 0.5
CLEARLY = 0.95  # of the error of the best of the others: less of a gain is noise
ENOUGH_STEPS = 0.25  # of those planned; with fewer, time was what training lacked
ONLY_IN_JSON = ('shot_stamps_ns', 'tuning')  # too long for the page


def figures(result: Adaptation) -> dict[str, Any]:
    """Return everything that was measured, ready for JSON; metres on the test block."""
    after, before = result.replay_after, result.replay_before
    return {
        'before': result.before.figures(),
        'after': result.after.figures(),
        'baselines': {name: judged.figures() for name, judged in result.baselines.items()},
        'worthwhile': result.worthwhile,
        'forgetting': {'before': before.figures(), 'after': after.figures()},
        'frames': {
            'shots': len(result.material.shots),
            'shots_asked': result.shots_asked,
            'validation': len(result.material.validation),
            'test': len(result.after.errors),
            'replay': len(result.material.replay),
            'forgetting': len(after.errors),
        },
        'train': result.train,
        'fitted_numbers': result.fitted_numbers,
        'best_step': result.best_step,
        'steps': result.history[-1].step,
        'stopped_early': result.stopped_early,
        'history': [
            {'step': v.step, 'loss': _or_none(v.loss), 'validation_abs_rel': v.abs_rel}
            for v in result.history
        ],
        'seconds': result.seconds,
    }


def verdict(result: Adaptation) -> str:
    """Return in one sentence whether adapting was worth it."""
    name, best = result.best_rival
    ours, rival = result.after.mean('abs_rel'), TITLES[name]
    if result.worthwhile:
        compared = f'AbsRel {ours:.3f} adapted; the best of the others, {rival}: {best:.3f}.'
        if ours < CLEARLY * best:
            return f'Worth it: {compared}'
        return f'Hardly worth it: {compared} {_remedy(result)}'
    if not result.best_step and result.train != 'scale_shift':
        return f'NOT worth it: nothing was learnt, the adapter changes nothing. {_remedy(result)}'
    return (
        f'NOT worth it: the adapted model has AbsRel {ours:.3f}, but {rival} has {best:.3f}. '
        f'Do not use this adapter. {_remedy(result)}'
    )


def _remedy(result: Adaptation) -> str:
    tuning, made = result.provenance['tuning'], result.history[-1].step
    is_cut = made < ENOUGH_STEPS * tuning['steps'] and not result.stopped_early
    if result.train != 'scale_shift' and is_cut:
        return (
            f'Only {made} of {tuning["steps"]} steps fitted into {tuning["minutes"]:g} minutes on '
            'this machine: give it more --minutes.'
        )
    return 'Record more of the room, or more slowly, and try again.'


def shortage(result: Adaptation) -> str:
    """Return in one sentence that shots are missing; '' when none are."""
    found = len(result.material.shots)
    if found == result.shots_asked:
        return ''
    return f'Only {found} shots instead of {result.shots_asked}: no more with enough depth found.'


def teaching(result: Adaptation) -> str:
    """Return in words what was fitted to what, and what validation chose."""
    shots, validation = len(result.material.shots), len(result.material.validation)
    if result.train == 'scale_shift':
        before, after = (v.abs_rel for v in result.history)
        end = 'so they are used' if result.best_step else 'so the model is left as it was'
        return (
            f'Two numbers, a scale and a shift of the last layer, were fitted to {shots} shots: '
            f'on {validation} validation frames AbsRel went from {before:.3f} to {after:.3f}, '
            f'{end}.'
        )
    why = ', until validation gained no more' if result.stopped_early else ''
    return (
        f'{result.fitted_numbers:,} parameters were trained on {shots} shots: '
        f'{result.history[-1].step} of {result.provenance["tuning"]["steps"]} steps{why}. '
        f'Kept are the weights after step {result.best_step}: {validation} validation frames '
        'chose them, apart in time from the shots and earlier than the frames above.'
    )


def remarks(result: Adaptation) -> list[str]:
    """Return what has to be said beside the table, the verdict last."""
    sentences = [shortage(result), teaching(result), forgetting(result), verdict(result)]
    return [sentence for sentence in sentences if sentence]


def terminal_table(result: Adaptation) -> Table:
    """Return the figures in at most 80 columns."""
    table = Table(title=f'{len(result.after.errors)} held-out later frames, metres')
    table.add_column('')
    for name in ('AbsRel', '95 %', 'RMSE', 'δ1'):
        table.add_column(name, justify='right')
    for name, judged in _rows(result):
        values = judged.figures()
        table.add_row(
            TITLES[name],
            f'{values["abs_rel"]:.3f}',
            f'{values["abs_rel_low"]:.3f}–{values["abs_rel_high"]:.3f}',
            f'{values["rmse"]:.2f}',
            f'{values["delta1"]:.3f}',
            end_section=name == 'scale_shift',
        )
    return table


def forgetting(result: Adaptation) -> str:
    """Return in one sentence what the model lost elsewhere."""
    before, after = (j.mean('abs_rel') for j in (result.replay_before, result.replay_after))
    rendered = result.provenance['replay'] == RENDERED
    others = RENDERED if rendered else 'given frames of other rooms'
    return (
        f'Forgetting: on {len(result.replay_after.errors)} {others} AbsRel went from '
        f'{before:.3f} to {after:.3f}.'
    )


def write(result: Adaptation, out: Path) -> None:
    """Write metrics.json, provenance.json and report.html into the adapter's folder."""
    for name, content in (('metrics', figures(result)), ('provenance', result.provenance)):
        write_whole(out / f'{name}.json', json.dumps(content, indent=2))
    write_whole(out / 'report.html', page(result))


def page(result: Adaptation) -> str:
    """Return a self-contained HTML page."""
    return report.page(
        f'Adaptation to {", ".join(result.provenance["scenes"])}',
        [
            report.paragraph(verdict(result), bold=True),
            _table(result),
            report.paragraph(forgetting(result)),
            report.heading('Held-out frames'),
            *_pictures(result),
            report.heading('Error by distance'),
            _by_distance(result),
            report.heading('Training'),
            *_courses(result),
            report.paragraph(teaching(result)),
            report.paragraph(shortage(result)),
            report.heading('Provenance'),
            _provenance(result),
        ],
    )


def _provenance(result: Adaptation) -> str:
    shown = {k: v for k, v in result.provenance.items() if k not in ONLY_IN_JSON}
    return report.table(
        ['what', 'value'],
        [[name, str(value)] for name, value in shown.items()],
        caption='More is in provenance.json',
    )


def _rows(result: Adaptation) -> list[tuple[str, HeldOut]]:
    everything = {'before': result.before} | result.baselines | {'after': result.after}
    return list(everything.items())


def _table(result: Adaptation) -> str:
    rows = []
    for name, judged in _rows(result):
        values = judged.figures()
        interval = f'{values["abs_rel_low"]:.3f} to {values["abs_rel_high"]:.3f}'
        rows.append([TITLES[name], values['abs_rel'], interval, values['rmse'], values['delta1']])
    return report.table(
        ['', 'AbsRel', '95 % interval', 'RMSE (m)', 'δ1'],
        rows,
        caption=f'{len(result.after.errors)} frames, later than all that taught or stopped',
        last_is_total=True,
    )


def _by_distance(result: Adaptation) -> str:
    bins = [number for number, share in enumerate(result.after.by_distance().share) if share > 0]
    columns = [f'{DISTANCES_M[i]:g} to {DISTANCES_M[i + 1]:g} m' for i in bins]
    rows = [[TITLES[name], *judged.by_distance().abs_rel[bins]] for name, judged in _rows(result)]
    return report.table(['AbsRel of pixels in', *columns], rows)


def _courses(result: Adaptation) -> list[str]:
    losses = [(v.step, v.loss) for v in result.history if math.isfinite(v.loss)]
    series = {'validation AbsRel': [(v.step, v.abs_rel) for v in result.history], 'loss': losses}
    return [
        report.line_chart({name: points}, x_label='step', y_label=name.split()[-1], whole_x=True)
        for name, points in series.items()
        if points
    ]


def _pictures(result: Adaptation) -> list[str]:
    known = np.concatenate([sample.depth_m.ravel() for sample, *_ in result.pictures])
    near, far = np.nanpercentile(known, [1, 99])
    far = max(far, 1.1 * near)  # of a bare wall
    rows = []
    for sample, before_m, after_m in result.pictures:
        truth = sample.depth_m
        depths = [report.color_depth(d, min_m=near, max_m=far) for d in (truth, before_m, after_m)]
        errors = [report.color_error(d, truth, limit=ERROR_LIMIT) for d in (before_m, after_m)]
        rows.append([sample.rgb, *depths, *errors])
    captions = ['image', 'true depth', 'before', 'after', 'error before', 'error after']
    return [
        report.pictures(rows, captions),
        report.depth_scale(min_m=near, max_m=far),
        report.error_scale(limit=ERROR_LIMIT),
    ]


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
