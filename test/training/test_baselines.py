"""Baselines, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from training.conftest import plain_sample

from llm_mde_train.baselines import constant, fit_line, pixel_median, pixels_of, scale_shift


def test_constant_is_the_median_of_what_is_known_and_in_range():
    depth_m = np.full((48, 64), 1.0, np.float32)
    depth_m[:, :40] = 3.0
    depth_m[:10] = np.nan
    depth_m[10:12] = 50.0  # beyond what the sample trusts
    predict = constant([plain_sample(depth_m)])
    assert (predict(plain_sample(7.0)) == 3.0).all()


def test_pixel_median_is_that_of_each_pixel():
    first, second, third = (np.full((48, 64), d, np.float32) for d in (1.0, 2.0, 6.0))
    second[0, 0] = third[0, 0] = np.nan
    for depths in (first, second, third):
        depths[0, 1] = np.nan
    predicted = pixel_median([plain_sample(d) for d in (first, second, third)])(plain_sample())
    assert predicted[0, 0] == 1.0
    assert predicted[0, 1] == 2.0  # nobody knows: the median of all
    assert (predicted[1:] == 2.0).all()


def test_pixel_median_fits_another_size():
    depth_m = np.full((48, 64), 1.0, np.float32)
    depth_m[:, 32:] = 4.0
    predicted = pixel_median([plain_sample(depth_m)])(plain_sample(width=32, height=24))
    assert (predicted[:, :16] == 1.0).all()
    assert (predicted[:, 16:] == 4.0).all()
    assert predicted.shape == (24, 32)


def test_scale_and_shift_are_found_beside_outliers():
    truth = np.tile(np.linspace(1.0, 5.0, 64, dtype=np.float32), (48, 1))
    sample = plain_sample(truth)
    noisy = truth.copy()
    noisy[::5] = 9.0
    corrected = scale_shift(lambda s: (s.depth_m - 0.5) / 2.0, [sample])(sample)
    np.testing.assert_allclose(corrected, truth, atol=1e-3)
    wrong = scale_shift(lambda s: (truth - 0.5) / 2.0, [plain_sample(noisy)])(sample)
    np.testing.assert_allclose(wrong, truth, atol=0.05)


def test_line_through_points_by_hand():
    x = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    y = 3.0 * x - 1.0
    assert fit_line(x, y, weights=np.ones(5)) == pytest.approx((3.0, -1.0), abs=1e-6)
    y[2] = 40.0
    assert fit_line(x, y, weights=np.ones(5)) == pytest.approx((3.0, -1.0), abs=1e-2)


def test_only_pixels_that_both_know_are_compared():
    truth = np.full((48, 64), 2.0, np.float32)
    truth[:, 0] = np.nan
    guess = np.full((48, 64), 3.0, np.float32)
    guess[0] = np.nan
    predicted, true = pixels_of(lambda _: guess, [plain_sample(truth)])
    assert len(predicted) == len(true) == 47 * 63
    assert set(predicted) == {3.0}
    assert set(true) == {2.0}
