"""Figures of an evaluation: scenes, sets, intervals and the page that shows them."""

from __future__ import annotations

from dataclasses import replace
import json
from math import nan

import numpy as np
import pytest
from training.conftest import plain_sample, small_rooms

from llm_mde_core import DepthEstimator
from llm_mde_train.calibration import KEPT
from llm_mde_train.evaluate import depth_counts, evaluate, median_depth_m, median_of_counts
from llm_mde_train.evaluation import Evaluation, FrameSet, figures, judge_sets
from llm_mde_train.evaluation import median_depth_m as median_of_sets
from llm_mde_train.evaluation_page import (
    best_median_worst,
    confidence_summary,
    page,
    warning_of_shots,
)
from llm_mde_train.metrics import METRICS


@pytest.fixture
def estimator(tiny_model) -> DepthEstimator:
    return DepthEstimator(tiny_model, name='random', device='cpu')


@pytest.fixture
def evaluation(estimator) -> Evaluation:
    first, second = small_rooms(0, 2)
    kitchen = [replace(s, scene='kitchen', stamp_ns=n) for n, s in enumerate((second, first))]
    blind = plain_sample(nan, scene='cellar')
    sets = [FrameSet('a', [*kitchen[::-1], blind]), FrameSet('b', [plain_sample(2.0)])]
    return judge_sets(estimator, sets, constant_m=2.0)


def test_scenes_and_sets(evaluation, estimator):
    everything = [frame for each in evaluation.sets for frame in each.frames]
    expected = evaluate(estimator, everything)
    for scene, values in evaluation.scores.items():
        assert values == pytest.approx(expected[scene])
    assert list(evaluation.scores) == ['kitchen', 'room', 'mean']  # a frame without depth is none
    assert evaluation.set_scores['a'] == evaluation.scores['kitchen']
    assert [one.frame.stamp_ns for one in evaluation.judged['a']] == [0, 1]
    frames = [one.errors['rmse'] for one in evaluation.frames]
    assert evaluation.mean_over_frames['rmse'] == pytest.approx(np.mean(frames))
    assert evaluation.scores['mean']['rmse'] != pytest.approx(np.mean(frames))


def test_constant_is_judged_beside(evaluation):
    assert evaluation.constant_scores['room']['abs_rel'] == 0.0
    assert evaluation.constant_scores['kitchen']['abs_rel'] > 0.1


def test_own_median_is_judged_beside(evaluation):
    """What knows how far away a frame is, and nothing of its shape."""
    medians = [np.nanmedian(one.frame.load().depth_m) for one in evaluation.frames]
    expected = [
        np.nanmean(np.abs(median - one.frame.depth_m) / one.frame.depth_m)
        for median, one in zip(medians, evaluation.frames, strict=True)
    ]
    assert evaluation.flat_scores['kitchen']['abs_rel'] == pytest.approx(np.mean(expected[:2]))
    assert figures(evaluation)['own_median']['room']['abs_rel'] == 0.0


def test_intervals_hold_the_mean_within_what_scenes_have(evaluation):
    for name in METRICS:
        low, high = evaluation.intervals[name]
        assert low <= evaluation.scores['mean'][name] + 1e-12
        assert high >= evaluation.scores['mean'][name] - 1e-12


def test_profiles_are_of_all_compared_pixels(evaluation):
    assert evaluation.by_distance.share.sum() == pytest.approx(1.0)
    assert evaluation.by_confidence.share.sum() == pytest.approx(1.0)
    said, best = evaluation.kept
    assert said[0] == pytest.approx(best[0]) == pytest.approx(evaluation.scores['mean']['abs_rel'])
    assert (best <= said + 1e-12).all()


def test_confidence_sentence_says_what_happens(evaluation):
    happens = evaluation.scores['mean']['delta1']
    assert f'{happens:.2f} are;' in confidence_summary(evaluation)
    half = evaluation.kept[0][len(KEPT) // 2]
    assert f'half of each image has AbsRel {half:.3f}, all' in confidence_summary(evaluation)


def test_frames_that_taught_are_told(estimator, tmp_path):
    clock = 1_700_000_000_000_000_000
    provenance = {'shot_stamps_ns': [1, clock], 'scenes': ['kitchen']}
    (tmp_path / 'provenance.json').write_text(json.dumps(provenance))
    room = small_rooms(0, 1)[0]
    frames = [
        replace(room, scene=scene, stamp_ns=stamp)
        for scene, stamp in [('kitchen', 1), ('kitchen', 2), ('office', 1), ('renamed', clock)]
    ]
    sets = [FrameSet('a', frames)]
    judged = judge_sets(estimator, sets, constant_m=2.0, adapter=str(tmp_path))
    warning = '2 of these frames taught the adapter: the figures are too good.'
    assert warning_of_shots(judged) == warning
    assert f'<strong>{warning}</strong>' in page(judged, estimator)
    assert figures(judged)['frames_that_taught'] == 2
    assert warning_of_shots(judge_sets(estimator, sets, constant_m=2.0)) == ''


def test_figures_are_plain_json(evaluation):
    found = json.loads(json.dumps(figures(evaluation), allow_nan=False))
    assert found['mean'] == pytest.approx(evaluation.scores['mean'])
    assert found['edges']['room']['edge_sharpness'] is None  # a flat room has no edges
    assert found['mean_interval_95']['abs_rel'] == pytest.approx(evaluation.intervals['abs_rel'])
    assert [bin['to'] for bin in found['confidence']['bins']][-1] == 1.0
    assert len(found['frames']) == 3


def test_page_shows_best_median_and_worst(estimator):
    frames = [replace(s, stamp_ns=n) for n, s in enumerate(small_rooms(3, 5))]
    judged = judge_sets(estimator, [FrameSet('many', frames)], constant_m=2.0).frames
    errors = sorted(one.errors['abs_rel'] for one in judged)
    shown = [one.errors['abs_rel'] for one in best_median_worst(judged)]
    assert shown == [errors[0], errors[2], errors[-1]]
    assert len(best_median_worst(judged[:2])) == 2


def test_nothing_to_judge_is_an_error(estimator):
    with pytest.raises(ValueError, match='no frame with known depth'):
        judge_sets(estimator, [FrameSet('a', [plain_sample(nan)])], constant_m=2.0)


def test_medians_count_pixels_whatever_their_frames():
    near, far = plain_sample(1.0, width=4), plain_sample(3.0, width=6)
    assert median_of_sets([FrameSet('a', [near]), FrameSet('b', [far])]) == 3.0
    assert median_depth_m([near, plain_sample(2.0, width=4)]) == 1.5
    rng = np.random.default_rng(0)
    depths = np.round(rng.uniform(0.5, 9.0, (48, 63)), 3)
    counts = depth_counts([plain_sample(depths, width=63)])
    assert median_of_counts(counts) == pytest.approx(np.median(depths), abs=5e-4)
