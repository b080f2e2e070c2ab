"""Metrics: cases calculated by hand, masks, averages."""

from __future__ import annotations

from math import nan, sqrt

import numpy as np
import pytest

from llm_mde_train.metrics import depth_errors, known_depth, mean_over_scenes


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
    assert errors([1.0, 2.0], [1.0, 2.0]) == {'abs_rel': 0.0, 'rmse': 0.0, 'delta1': 1.0}


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


def test_pixels_without_a_prediction_do_not_count():
    assert errors([nan, 3.0], [1.0, 2.0])['rmse'] == 1.0


@pytest.mark.parametrize(('predicted', 'true'), [(1.0, nan), (nan, 1.0), (1.0, 11.0)])
def test_nothing_to_compare_is_an_error(predicted, true):
    with pytest.raises(ValueError, match='no pixel'):
        errors([predicted], [true])


def test_every_scene_counts_the_same():
    def row(value):
        return {'abs_rel': value, 'rmse': 10 * value, 'delta1': 1 - value}

    table = mean_over_scenes([('b', row(0.1)), ('b', row(0.3)), ('a', row(0.8))])
    assert list(table) == ['a', 'b', 'mean']
    assert table['b']['abs_rel'] == pytest.approx(0.2)
    assert table['mean'] == pytest.approx({'abs_rel': 0.5, 'rmse': 5.0, 'delta1': 0.5})


def test_no_frame_is_an_error():
    with pytest.raises(ValueError, match='no frame'):
        mean_over_scenes([])
