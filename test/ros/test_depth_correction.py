import math

import numpy as np
import pytest
import torch

from llm_mde_ros.depth_correction import TIME_CONSTANT_S, DepthCorrection, fit

RNG = np.random.default_rng(5)
REFERENCE_M = RNG.uniform(0.8, 6, 2000)


def held(predicted_m, reference_m, *, seconds=60.0, step_s=0.1, **fields):
    """Return the correction after so long with the same samples."""
    correction = DepthCorrection(**fields)
    for _ in range(round(seconds / step_s)):
        correction = correction.towards(predicted_m, reference_m, elapsed_s=step_s)
    return correction


@pytest.mark.parametrize(('scale', 'shift_m'), [(1.0, 0.0), (1.2, 0.0), (0.9, 0.25), (1.1, -0.2)])
def test_the_fit_undoes_a_scale_and_a_shift(scale, shift_m):
    predicted_m = (REFERENCE_M - shift_m) / scale
    np.testing.assert_allclose(fit(predicted_m, REFERENCE_M), (scale, shift_m), atol=1e-9)


def test_outliers_do_not_move_the_fit():
    predicted_m = REFERENCE_M / 1.2 * np.exp(RNG.normal(0, 0.02, 2000))
    predicted_m[:400] *= RNG.uniform(1.5, 4, 400)  # a fifth of it, all on one side
    scale, shift_m = fit(predicted_m, REFERENCE_M)
    assert abs(scale * 2.5 + shift_m - 1.2 * 2.5) < 0.15


def test_a_wall_in_one_distance_tells_a_scale_but_no_shift():
    reference_m = np.full(500, 2.0) + RNG.normal(0, 0.01, 500)
    predicted_m = 1.6 * np.exp(RNG.normal(0, 0.05, 500))
    scale, shift_m = fit(predicted_m, reference_m)
    assert shift_m == 0
    assert scale == pytest.approx(1.25, rel=0.01)


def test_a_shift_that_hardly_helps_is_not_believed():
    predicted_m = REFERENCE_M / 1.2 * np.exp(RNG.normal(0, 0.3, 2000)) + 0.05
    scale, shift_m = fit(predicted_m, REFERENCE_M)
    assert shift_m == 0
    assert scale == pytest.approx(1.2, rel=0.05)


def test_a_constant_prediction_gives_a_scale():
    assert fit(np.full(2000, 2.0), REFERENCE_M) == (np.median(REFERENCE_M) / 2, 0.0)


def test_the_correction_is_slow():
    predicted_m = REFERENCE_M / 1.2
    early = held(predicted_m, REFERENCE_M, seconds=1.0)
    assert early.scale == pytest.approx(1 + 0.2 * (1 - math.exp(-0.1)), rel=1e-6)
    after = held(predicted_m, REFERENCE_M, seconds=TIME_CONSTANT_S)
    assert after.scale == pytest.approx(1 + 0.2 * (1 - math.exp(-1)), rel=1e-6)
    assert held(predicted_m, REFERENCE_M).scale == pytest.approx(1.2, rel=0.01)


def test_time_counts_and_not_frames():
    predicted_m = REFERENCE_M / 1.2
    often = held(predicted_m, REFERENCE_M, seconds=5, step_s=0.05)
    seldom = held(predicted_m, REFERENCE_M, seconds=5, step_s=0.5)
    assert often.scale == pytest.approx(seldom.scale, rel=1e-9)


@pytest.mark.parametrize('elapsed_s', [-5.0, 0.0])
def test_no_time_changes_nothing(elapsed_s):
    correction = DepthCorrection().towards(REFERENCE_M / 1.2, REFERENCE_M, elapsed_s=elapsed_s)
    assert not correction.changes_depth


def test_a_pause_of_an_hour_is_no_jump():
    correction = DepthCorrection().towards(REFERENCE_M / 1.2, REFERENCE_M, elapsed_s=3600.0)
    assert 1 < correction.scale < 1.03


def test_a_handful_of_samples_teaches_nothing():
    before = DepthCorrection(scale=1.1)
    assert before.towards(REFERENCE_M[:49] / 1.2, REFERENCE_M[:49], elapsed_s=1.0) == before
    assert DepthCorrection().towards(np.ones(0), np.ones(0), elapsed_s=1.0) == DepthCorrection()


@pytest.mark.parametrize(('error', 'limit'), [(1 / 3, 1.25), (3.0, 0.8)])
def test_a_reference_that_is_far_off_is_followed_to_the_limit_and_told(error, limit):
    correction = held(REFERENCE_M * error, REFERENCE_M)
    assert correction.at_limit
    assert correction.scale == pytest.approx(limit, rel=0.01)
    assert not held(REFERENCE_M / 1.2, REFERENCE_M).at_limit


def test_no_depth_changes_by_more_than_the_factor():
    depth = torch.linspace(0.1, 20, 500)
    for correction in (
        DepthCorrection(scale=1.1, shift_m=-0.5),
        DepthCorrection(scale=0.7, shift_m=0.9),
        DepthCorrection(scale=3.0),
    ):
        ratio = correction.apply(depth) / depth
        assert ratio.min() >= 0.8 - 1e-6
        assert ratio.max() <= 1.25 + 1e-6


def test_depth_is_scaled_and_shifted_and_what_is_unknown_stays_so():
    depth = torch.tensor([[1.0, math.nan], [4.0, 10.0]])
    corrected = DepthCorrection(scale=1.1, shift_m=0.1).apply(depth)
    torch.testing.assert_close(
        corrected, torch.tensor([[1.2, math.nan], [4.5, 11.1]]), equal_nan=True
    )
    assert corrected.dtype == torch.float32
    torch.testing.assert_close(depth[0, 0], torch.tensor(1.0))  # not in place


def test_the_limit_that_was_set_holds():
    depth = DepthCorrection(scale=1.5, max_factor=1.05).apply(torch.tensor([2.0]))
    torch.testing.assert_close(depth, torch.tensor([2.1]))


def test_the_correction_says_what_it_does():
    assert str(DepthCorrection(scale=1.0432, shift_m=-0.02)) == 'depth x 1.043 -0.020 m'
