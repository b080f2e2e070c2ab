"""What an adaptation came to: figures as JSON, a table for the terminal, a page with pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from llm_mde_train import report
from llm_mde_train.adapt import Adaptation
from llm_mde_train.held_out import DISTANCES_M, Judgement

TITLES = {
    'before': 'model before',
    'constant': 'constant (median of the shots)',
    'pixel_median': "each pixel's median of the shots",
    'scale_shift': 'model before, scaled and shifted',
    'after': 'adapted model',
}
ERROR_LIMIT = 0.5


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
            'validation': len(result.material.validation),
            'test': len(result.after.frames),
            'replay': len(result.material.replay),
            'forgetting': len(after.frames),
        },
        'trained_parameters': result.trained_parameters,
        'best_step': result.best_step,
        'steps': result.history[-1].step,
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
        return f'Worth it: AbsRel {ours:.3f} adapted; the best of the others, {rival}: {best:.3f}.'
    return (
        f'NOT worth it: the adapted model has AbsRel {ours:.3f}, but {rival} has {best:.3f}. '
        'Do not use this adapter; record more of the room, or more slowly, and try again.'
    )


def terminal_table(result: Adaptation) -> Table:
    """Return the figures in at most 80 columns."""
    table = Table(title=f'{len(result.after.frames)} held-out later frames, metres')
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
    return (
        f'Forgetting: on {len(result.replay_after.frames)} frames of other rooms AbsRel went from '
        f'{before:.3f} to {after:.3f}.'
    )


def write(result: Adaptation, out: Path) -> None:
    """Write metrics.json, provenance.json and report.html into the adapter's folder."""
    for name, content in (('metrics', figures(result)), ('provenance', result.provenance)):
        (out / f'{name}.json').write_text(json.dumps(content, indent=2), encoding='utf-8')
    (out / 'report.html').write_text(page(result), encoding='utf-8')


def page(result: Adaptation) -> str:
    """Return a self-contained HTML page."""
    losses = [(v.step, v.loss) for v in result.history if math.isfinite(v.loss)]
    return report.page(
        f'Adaptation to {", ".join(result.provenance["scenes"])}',
        [
            report.paragraph(verdict(result)),
            _table(result),
            report.paragraph(forgetting(result)),
            report.heading('Held-out frames'),
            *_pictures(result),
            report.heading('Error by distance'),
            _by_distance(result),
            report.heading('Training'),
            report.line_chart(
                {'validation AbsRel': [(v.step, v.abs_rel) for v in result.history]},
                x_label='step',
                y_label='AbsRel',
            ),
            report.line_chart({'loss': losses}, x_label='step', y_label='loss'),
            report.paragraph(
                f'{result.trained_parameters:,} parameters were trained on '
                f'{len(result.material.shots)} shots. Validation on '
                f'{len(result.material.validation)} frames, later than the shots and earlier '
                f'than the frames above, chose step {result.best_step}.'
            ),
            report.heading('Provenance'),
            report.table(['what', 'value'], [[k, str(v)] for k, v in result.provenance.items()]),
        ],
    )


def _rows(result: Adaptation) -> list[tuple[str, Judgement]]:
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
        caption=f'{len(result.after.frames)} frames, later than all that taught or stopped',
        last_is_total=True,
    )


def _by_distance(result: Adaptation) -> str:
    columns = [f'{low:g} m' for low in DISTANCES_M[:-1]]
    rows = [[TITLES[name], *judged.by_distance] for name, judged in _rows(result)]
    return report.table(
        ['AbsRel of pixels from', *columns], rows, caption='to where the next column begins'
    )


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
