"""Metrics: cases calculated by hand, masks, averages."""

from __future__ import annotations

from math import log, log10, nan, sqrt

import numpy as np
import pytest
import torch
from torchmetrics.functional.regression import mean_absolute_percentage_error, mean_squared_error

from llm_mde_train.metrics import (
    METRICS,
    bootstrap,
    depth_errors,
    known_depth,
    mean_over_scenes,
)

PERFECT = dict.fromkeys(METRICS, 0.0) | dict.fromkeys(
    ('delta1', 'delta2', 'delta3', 'coverage'), 1.0
)


def errors(predicted: list[float], true: list[float], max_depth_m: float = 10.0):
    return depth_errors(
        np.array([predicted], np.float32), np.array([true], np.float32), max_depth_m=max_depth_m
    )


def test_known_answer():
    found = errors([1.0, 3.0, 4.4], [2.0, 2.0, 4.0])
    assert found['abs_rel'] == pytest.approx((0.5 + 0.5 + 0.1) / 3, rel=1e-6)
    assert found['rmse'] == pytest.approx(sqrt((1 + 1 + 0.16) / 3), rel=1e-6)
    assert found['delta1'] == pytest.approx(1 / 3)
    assert found['sq_rel'] == pytest.approx((0.5 + 0.5 + 0.04) / 3, rel=1e-6)
    logs = (-log(2), log(1.5), log(1.1))
    assert found['rmse_log'] == pytest.approx(sqrt(sum(d * d for d in logs) / 3), rel=1e-6)
    variance = sum(d * d for d in logs) / 3 - (sum(logs) / 3) ** 2
    assert found['silog'] == pytest.approx(100 * sqrt(variance), rel=1e-6)
    assert found['log10'] == pytest.approx((log10(2) + log10(1.5) + log10(1.1)) / 3, rel=1e-6)
    assert tuple(found) == METRICS


def test_torchmetrics_says_the_same():
    rng = np.random.default_rng(0)
    predicted, true = rng.uniform(0.5, 9.0, (2, 20, 30))
    found = depth_errors(predicted, true, max_depth_m=10.0)
    said, truth = torch.from_numpy(predicted).flatten(), torch.from_numpy(true).flatten()
    assert found['abs_rel'] == pytest.approx(mean_absolute_percentage_error(said, truth).item())
    rmse = mean_squared_error(said, truth, squared=False)
    assert found['rmse'] == pytest.approx(rmse.item())
    rmse_log = mean_squared_error(said.log(), truth.log(), squared=False)
    assert found['rmse_log'] == pytest.approx(rmse_log.item())


def test_factor_leaves_silog_and_a_negative_depth_has_finite_figures():
    assert errors([2.0, 4.0], [1.0, 2.0])['silog'] == pytest.approx(0.0, abs=1e-6)
    assert errors([-2.0], [2.0])['rmse_log'] == pytest.approx(log(2.0 / 1e-3))


@pytest.mark.parametrize(
    ('predicted', 'deltas'),
    [(2.4, (1, 1, 1)), (2.6, (0, 1, 1)), (3.2, (0, 0, 1)), (4.0, (0, 0, 0))],
)
def test_deltas_are_powers_of_1_25(predicted, deltas):
    found = errors([predicted], [2.0])
    assert tuple(found[f'delta{power}'] for power in (1, 2, 3)) == deltas


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


def test_scale_and_shift_alignment_by_hand():
    """The line through (1, 2), (2, 3), (3, 7), least squares: 2.5 x - 1."""
    found = errors([1.0, 2.0, 3.0], [2.0, 3.0, 7.0])['abs_rel_scale_shift_aligned']
    assert found == pytest.approx((0.5 / 2 + 1.0 / 3 + 0.5 / 7) / 3)
    assert errors([3.0, 5.0, 6.0], [1.0, 2.0, 2.5])['abs_rel_scale_shift_aligned'] < 1e-9
    flat = errors([5.0, 5.0], [1.0, 3.0])['abs_rel_scale_shift_aligned']
    assert flat == pytest.approx((1.0 + 1.0 / 3) / 2)


def test_garg_crop():
    """KITTI's usual size: rows 153 to 370 and columns 44 to 1196 of 375 x 1242 ... by rounding."""
    known = known_depth(np.full((375, 1242), 2.0), max_depth_m=80.0, crop='garg')
    rows, columns = np.nonzero(known)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (153, 370, 44, 1196)


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
    ('crop', 'sentence'), [('middle', "not 'middle'"), ('eigen', r'480 x 640 .* \(1, 2\)')]
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


def test_figures_that_an_image_lacks_are_left_out():
    table = mean_over_scenes([('a', {'f1': nan}), ('a', {'f1': 0.5}), ('b', {'f1': nan})])
    assert table['a'] == table['mean'] == {'f1': 0.5}
    assert np.isnan(table['b']['f1'])


def test_bootstrap_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        low, high = bootstrap(rng.normal(5.0, 1.0, 60).tolist(), resamples=200)
        hits += low <= 5.0 <= high
    assert 78 <= hits <= 99  # blocks of eight of 60 are few: a little too narrow


def test_bootstrap_knows_that_neighbours_are_alike():
    alternating = [0.0, 1.0] * 50
    in_blocks = [0.0] * 50 + [1.0] * 50
    narrow, wide = bootstrap(alternating), bootstrap(in_blocks)
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])


def test_bootstrap_counts_scenes_not_frames():
    """Ninety equal frames of one scene are one opinion of two."""
    low, high = bootstrap([0.1] * 90 + [0.5], scenes=['a'] * 90 + ['b'])
    assert (low, high) == pytest.approx((0.1, 0.5))
    assert bootstrap([0.1] * 90, scenes=['a'] * 90) == pytest.approx((0.1, 0.1))


def test_bootstrap_repeats_itself():
    values = np.random.default_rng(2).normal(size=20).tolist()
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3) != bootstrap(values, seed=4)


@pytest.mark.parametrize('values', [[], [1.0, nan]])
def test_bootstrap_of_nothing_is_an_error(values):
    with pytest.raises(ValueError, match='finite figures'):
        bootstrap(values)
