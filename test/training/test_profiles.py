"""Errors in bins of distance or confidence, by hand."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest

from llm_mde_train.profiles import average_profiles, profile


def test_bins_by_hand():
    true = np.array([1.0, 2.0, 2.0, 4.0, 9.0])
    found = profile(true, np.array([1.1, 1.0, 2.0, 6.0, 9.0]), true, limits=(1.0, 2.0, 3.0, 4.0))
    np.testing.assert_allclose(found.share, [0.6, 0.0, 0.2])  # 9 m is beyond
    np.testing.assert_allclose(found.mean, [5 / 3, nan, 4.0])
    np.testing.assert_allclose(found.abs_rel, [(0.1 + 0.5) / 3, nan, 0.5])
    np.testing.assert_allclose(found.delta1, [2 / 3, nan, 0.0])


def test_both_ends_of_all_bins_belong_to_them():
    by = np.array([0.0, 0.5, 1.0])
    found = profile(by, np.ones(3), np.ones(3), limits=(0.0, 0.5, 1.0))
    np.testing.assert_allclose(found.share, [2 / 3, 1 / 3])


def test_every_scene_counts_the_same_and_every_frame_in_it():
    def frame(error: float, distances: list[float]):
        true = np.array(distances)
        return profile(true, (1 + error) * true, true, limits=(0.0, 1.0, 2.0))

    both = frame(0.1, [0.5, 1.5])  # half of its pixels in each bin
    far = frame(0.4, [1.5] * 7)
    found = average_profiles([('a', both), ('a', far), ('a', far), ('b', far)])
    np.testing.assert_allclose(found.share, [1 / 12, 11 / 12])
    scene_a = (0.5 * 0.1 + 1.0 * 0.4 + 1.0 * 0.4) / 2.5
    share_a = 2.5 / 3
    expected = (share_a * scene_a + 1.0 * 0.4) / (share_a + 1.0)
    np.testing.assert_allclose(found.abs_rel, [0.1, expected])
    assert found.mean[1] == pytest.approx(1.5)
