"""The page of an evaluation: tables, charts, and the best, median and worst frame of a scene."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from llm_mde_core import DepthEstimator
from llm_mde_train import report
from llm_mde_train.calibration import CONFIDENCES, KEPT, calibration_error
from llm_mde_train.edges import EDGE_FIGURES
from llm_mde_train.evaluate import Judgement, Scores
from llm_mde_train.evaluation import Evaluation
from llm_mde_train.metrics import METRICS
from llm_mde_train.profiles import DISTANCES_M

TITLES = {
    'abs_rel': 'AbsRel ↓',
    'sq_rel': 'SqRel (m) ↓',
    'rmse': 'RMSE (m) ↓',
    'rmse_log': 'RMSElog ↓',
    'silog': 'SILog ↓',
    'log10': 'log10 ↓',
    'delta1': 'δ1 ↑',
    'delta2': 'δ2 ↑',
    'delta3': 'δ3 ↑',
    'coverage': 'coverage ↑',
    'abs_rel_median_aligned': 'AbsRel, median-aligned ↓',
    'abs_rel_scale_shift_aligned': 'AbsRel, scale and shift by least squares ↓',
    'edge_sharpness': 'sharpness ↑',
    'edge_f1': 'F1 ↑',
    'flying_pixels': 'flying pixels ↓',
}
METRIC = tuple(name for name in METRICS if not name.endswith('_aligned'))
ALIGNED = tuple(name for name in METRICS if name.endswith('_aligned'))
PICTURED_SCENES = 12
ERROR_LIMIT = 0.5
MEASURED = (
    'Metres against metres where the truth is known and within its trusted range; '
    'averaged per image, then over the images of a scene, then over scenes. Intervals are of '
    '95 %: scenes, and within them blocks of successive frames, were drawn anew 1,000 times. '
    'Frames of one recording are much alike: take differences under a tenth as noise.'
)


def page(evaluation: Evaluation, estimator: DepthEstimator) -> str:
    """Return a self-contained HTML page; the estimator draws the pictures once more."""
    warning = warning_of_shots(evaluation)
    return report.page(
        f'{judged_model(evaluation)} on {", ".join(evaluation.judged)}',
        [
            *([report.paragraph(warning, bold=True)] if warning else []),
            report.paragraph(summary(evaluation)),
            report.paragraph(MEASURED),
            report.heading('In metres'),
            *_metric_tables(evaluation),
            report.heading('After aligning with the truth'),
            report.paragraph('Not metric: the truth of each image was used to mend its scale.'),
            _scene_table(evaluation.scores, ALIGNED),
            report.heading('Errors by distance'),
            *_distances(evaluation),
            report.heading('Confidence'),
            *_confidence(evaluation),
            report.heading('Edges'),
            report.paragraph(
                'Where the true depth changes by more than a quarter within a hundredth of the '
                'width. Sharpness: how much of that step the prediction makes there. F1: of '
                'predicted edges that are true and true ones that are predicted. Flying pixels: '
                'part of the pixels there that float between the two sides; a flat depth has '
                'none, so read it beside sharpness.'
            ),
            _scene_table(evaluation.edges, EDGE_FIGURES),
            report.heading('Frames'),
            *_frames(evaluation, estimator),
        ],
    )


def judged_model(evaluation: Evaluation) -> str:
    """Return the names of the model and its adapter."""
    return evaluation.model + (f' with {evaluation.adapter}' if evaluation.adapter else '')


def warning_of_shots(evaluation: Evaluation) -> str:
    """Return in a sentence that frames are not new to the adapter; '' when all are."""
    if not evaluation.taught:
        return ''
    return f'{evaluation.taught} of these frames taught the adapter: the figures are too good.'


def summary(evaluation: Evaluation) -> str:
    """Return the main figures in a sentence."""
    mean, (low, high) = evaluation.scores['mean'], evaluation.intervals['abs_rel']
    return (
        f'AbsRel {mean["abs_rel"]:.3f} (95 %: {low:.3f} to {high:.3f}), mean over scenes '
        f'({len(evaluation.scores) - 1}; {len(evaluation.frames)} frames); '
        f'{evaluation.constant_m:.2f} m everywhere has '
        f'{evaluation.constant_scores["mean"]["abs_rel"]:.3f}, the true median of each frame '
        f'{evaluation.flat_scores["mean"]["abs_rel"]:.3f}.'
    )


def confidence_summary(evaluation: Evaluation) -> str:
    """Return in a sentence what the confidence is worth."""
    bins, (said, best) = evaluation.by_confidence, evaluation.kept
    weights = np.nan_to_num(bins.share) / bins.share.sum()
    promised, kept = (float(weights @ np.nan_to_num(v)) for v in (bins.mean, bins.delta1))
    half = len(KEPT) // 2
    return (
        f'Confidence promises {promised:.2f} of the pixels within a factor of 1.25, {kept:.2f} '
        f'are; calibration error {calibration_error(bins):.2f}. The surer half of each image '
        f'has AbsRel {said[half]:.3f}, all of it {said[0]:.3f}; a perfect confidence would reach '
        f'{best[half]:.3f}.'
    )


def _metric_tables(evaluation: Evaluation) -> Iterator[str]:
    beside = {
        'constant: AbsRel': evaluation.constant_scores,
        'own median: AbsRel': evaluation.flat_scores,
    }
    yield _scene_table(evaluation.scores, METRIC, beside)
    if len(evaluation.set_scores) > 1:
        rows = [[name, *_row(values, METRIC)] for name, values in evaluation.set_scores.items()]
        yield report.table(['set', *_titles(METRIC)], rows, caption='Mean over scenes of a set')
    rows = [
        [
            TITLES[name],
            evaluation.scores['mean'][name],
            *evaluation.intervals[name],
            evaluation.mean_over_frames[name],
        ]
        for name in METRIC
    ]
    yield report.table(['', 'mean over scenes', '95 %: from', 'to', 'mean over frames'], rows)


def _scene_table(
    scores: Scores, names: Sequence[str], beside: Mapping[str, Scores] | None = None
) -> str:
    rivals = beside or {}
    rows: list[list[str | float]] = [
        [scene, *_row(values, names), *(rival[scene]['abs_rel'] for rival in rivals.values())]
        for scene, values in scores.items()
    ]
    return report.table(['scene', *_titles(names), *rivals], rows, last_is_total=True)


def _row(values: dict[str, float], names: Sequence[str]) -> list[float]:
    return [values[name] for name in names]


def _titles(names: Sequence[str]) -> list[str]:
    return [TITLES[name] for name in names]


def _distances(evaluation: Evaluation) -> Iterator[str]:
    bins = evaluation.by_distance
    yield report.line_chart(
        {'AbsRel': list(zip(bins.mean, bins.abs_rel, strict=True))},
        x_label='true distance (m)',
        y_label='AbsRel',
    )
    rows = [
        [f'{low:g} to {high:g} m', *(values[row] for values in (bins.share, bins.abs_rel))]
        for row, (low, high) in enumerate(pairwise(DISTANCES_M))
        if bins.share[row] > 0
    ]
    yield report.table(['distance', 'part of the pixels', 'AbsRel'], rows)


def _confidence(evaluation: Evaluation) -> Iterator[str]:
    bins, (said, best) = evaluation.by_confidence, evaluation.kept
    yield report.paragraph(confidence_summary(evaluation))
    yield report.line_chart(
        {
            'measured': list(zip(bins.mean, bins.delta1, strict=True)),
            'as promised': [(0.0, 0.0), (1.0, 1.0)],
        },
        x_label='confidence',
        y_label='part within a factor of 1.25',
        title='Is it right as often as it says?',
    )
    yield report.line_chart(
        {
            'surest by confidence': list(zip(KEPT, said, strict=True)),
            'at best (errors known)': list(zip(KEPT, best, strict=True)),
        },
        x_label='part of the pixels that is kept',
        y_label='AbsRel of those',
        title='Does confidence find the errors?',
    )
    rows = [
        [f'{low:.1f} to {high:.1f}']
        + [values[row] for values in (bins.share, bins.mean, bins.delta1, bins.abs_rel)]
        for row, (low, high) in enumerate(pairwise(CONFIDENCES))
        if bins.share[row] > 0
    ]
    columns = ['confidence', 'part of the pixels', 'promised', 'within 1.25', 'AbsRel']
    yield report.table(columns, rows)


def _frames(evaluation: Evaluation, estimator: DepthEstimator) -> Iterator[str]:
    scenes = [name for name in evaluation.scores if name != 'mean'][:PICTURED_SCENES]
    if len(scenes) < len(evaluation.scores) - 1:
        yield report.paragraph(f'Of the first {PICTURED_SCENES} scenes.')
    yield report.error_scale(limit=ERROR_LIMIT)
    yield report.confidence_scale()
    for scene in scenes:
        mine = [one for one in evaluation.frames if one.frame.scene == scene]
        yield report.heading(scene, level=3)
        yield from _pictures(best_median_worst(mine), estimator)


def best_median_worst(judged: list[Judgement]) -> list[Judgement]:
    """Return at most three of the judgements, by abs_rel."""
    ranked = sorted(judged, key=lambda one: one.errors['abs_rel'])
    places = sorted({0, len(ranked) // 2, len(ranked) - 1})
    return [ranked[place] for place in places]


def _pictures(judged: list[Judgement], estimator: DepthEstimator) -> Iterator[str]:
    rows, labels = [], []
    samples = [one.frame.load() for one in judged]
    near, far = np.nanpercentile(np.concatenate([s.depth_m.ravel() for s in samples]), [1, 99])
    for one, sample in zip(judged, samples, strict=True):
        said = estimator.infer(sample.rgb, sample.camera)
        true_m = np.where(sample.depth_m <= sample.max_depth_m, sample.depth_m, np.nan)
        rows.append(
            [
                sample.rgb,
                report.color_depth(true_m, min_m=near, max_m=far),
                report.color_depth(said.depth_m, min_m=near, max_m=far),
                report.color_error(said.depth_m, true_m, limit=ERROR_LIMIT),
                report.color_confidence(said.confidence),
            ]
        )
        labels.append(f'{one.frame.name}: AbsRel {one.errors["abs_rel"]:.3f}')
    captions = ['image', 'true depth', 'predicted depth', 'relative error', 'confidence']
    yield report.depth_scale(min_m=near, max_m=far)
    yield report.pictures(rows, captions, labels=labels)
