"""Metrics: cases calculated by hand, masks, averages."""

from __future__ import annotations

from math import nan, sqrt

import numpy as np
import pytest

from llm_mde_train.metrics import METRICS, depth_errors, known_depth, mean_over_scenes

PERFECT = {
    'abs_rel': 0.0,
    'rmse': 0.0,
    'delta1': 1.0,
    'coverage': 1.0,
    'abs_rel_median_aligned': 0.0,
}


def errors(predicted: list[float], true: list[float], max_depth_m: float = 10.0):
    return depth_errors(
        np.array([predicted], np.float32), np.array([true], np.float32), max_depth_m=max_depth_m
    )


def test_known_answer():
    found = errors([1.0, 3.0, 4.4], [2.0, 2.0, 4.0])
    assert found['abs_rel'] == pytest.approx((0.5 + 0.5 + 0.1) / 3, rel=1e-6)
    assert found['rmse'] == pytest.approx(sqrt((1 + 1 + 0.16) / 3), rel=1e-6)
    assert found['delta1'] == pytest.approx(1 / 3)


def test_truth_is_perfect():
    assert errors([1.0, 2.0], [1.0, 2.0]) == PERFECT


@pytest.mark.parametrize(
    ('predicted', 'within'), [(2.49, 1.0), (2.5, 0.0), (1.61, 1.0), (1.59, 0.0), (-2.0, 0.0)]
)
def test_delta1_is_a_factor_below_1_25_both_ways(predicted, within):
    assert errors([predicted], [2.0])['delta1'] == within


@pytest.mark.parametrize('true', [nan, 0.0, 0.001, -1.0, 5.1, float('inf')])
def test_unknown_or_far_truth_does_not_count(true):
    assert errors([1.0, 3.0], [1.0, true], max_depth_m=5.0)['rmse'] == 0.0
    assert known_depth(np.array([1.0, true]), max_depth_m=5.0).tolist() == [True, False]


def test_truth_at_the_limit_counts():
    assert errors([6.0], [5.0], max_depth_m=5.0)['abs_rel'] == pytest.approx(0.2)


def test_pixels_without_a_prediction_do_not_count_but_are_counted():
    found = errors([nan, 3.0, 1.0, nan], [1.0, 2.0, nan, 11.0])
    assert found['rmse'] == 1.0
    assert found['coverage'] == 0.5


def test_alignment_is_a_column_of_its_own():
    """Defect 3: a prediction of twice the depth is wrong in metres, and right once aligned."""
    found = errors([2.0, 4.0, 9.0], [1.0, 2.0, 4.0])
    assert found['abs_rel'] == pytest.approx((1.0 + 1.0 + 1.25) / 3)
    assert found['delta1'] == 0.0
    assert found['abs_rel_median_aligned'] == pytest.approx(0.125 / 3)


def test_eigen_crop():
    """Defect 3: rows 45 to 470 and columns 41 to 600 of 480 x 640 count, no others."""
    true = np.full((480, 640), 2.0, np.float32)
    known = known_depth(true, max_depth_m=10.0, crop='eigen')
    rows, columns = np.nonzero(known)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (45, 470, 41, 600)
    assert known.sum() == 426 * 560
    predicted = np.where(known, true, 1.0)
    assert depth_errors(predicted, true, max_depth_m=10.0, crop='eigen') == PERFECT
    assert depth_errors(predicted, true, max_depth_m=10.0)['abs_rel'] > 0.1


def test_unknown_holes_stay_unknown_in_the_crop():
    true = np.full((480, 640), nan, np.float32)
    true[100, 100] = 1.0
    assert known_depth(true, max_depth_m=10.0, crop='eigen').sum() == 1


@pytest.mark.parametrize(
    ('crop', 'sentence'), [('garg', "not 'garg'"), ('eigen', r'480 x 640 .* \(1, 2\)')]
)
def test_a_crop_that_cannot_be_is_an_error(crop, sentence):
    with pytest.raises(ValueError, match=sentence):
        known_depth(np.ones((1, 2), np.float32), max_depth_m=10.0, crop=crop)


@pytest.mark.parametrize(('predicted', 'true'), [(1.0, nan), (nan, 1.0), (1.0, 11.0)])
def test_nothing_to_compare_is_an_error(predicted, true):
    with pytest.raises(ValueError, match='no pixel'):
        errors([predicted], [true])


def test_every_scene_counts_the_same():
    def row(value):
        return dict.fromkeys(METRICS, value) | {'rmse': 10 * value, 'delta1': 1 - value}

    table = mean_over_scenes([('b', row(0.1)), ('b', row(0.3)), ('a', row(0.8))])
    assert list(table) == ['a', 'b', 'mean']
    assert table['b']['abs_rel'] == pytest.approx(0.2)
    assert table['mean'] == pytest.approx(row(0.5))


def test_no_frame_is_an_error():
    with pytest.raises(ValueError, match='no frame'):
        mean_over_scenes([])
