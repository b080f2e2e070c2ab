"""Pairs of stamps: the closest first, each used once, none beyond the tolerance."""

from __future__ import annotations

import numpy as np
import pytest

from llm_mde_train.stamp_pairs import pair_stamps, smallest_gap_ns


@pytest.mark.parametrize(
    ('color', 'depth', 'expected'),
    [
        ([0, 10, 20], [1, 11, 21], [(0, 0), (1, 1), (2, 2)]),
        ([0, 10, 20], [21, 1, 11], [(0, 1), (1, 2), (2, 0)]),  # in any order
        ([20, 0], [1, 21], [(1, 0), (0, 1)]),  # in the order of the colour stamps
        ([0, 10], [4, 5, 6], [(0, 0), (1, 2)]),
        ([0, 10, 20, 30], [10, 30], [(1, 0), (3, 1)]),  # depth at half the rate
        ([8, 10], [10], [(1, 0)]),  # the closest, not the first
        ([0, 2, 4], [1, 3, 5], [(0, 0), (1, 1), (2, 2)]),  # ties lose nobody
        ([0], [6], []),
        ([], [6], []),
        ([0], [], []),
    ],
)
def test_pairs(color, depth, expected):
    stamps = (np.array(each, np.int64) for each in (color, depth))
    assert pair_stamps(*stamps, tolerance_ns=5) == expected


def test_stamps_of_today_are_exact_to_a_nanosecond():
    now = 1_763_800_000_123_456_789
    color, depth = np.array([now]), np.array([now + 30, now + 31])
    assert pair_stamps(color, depth, tolerance_ns=30) == [(0, 0)]
    assert pair_stamps(color, depth, tolerance_ns=29) == []
    assert smallest_gap_ns(color, depth) == 30


def test_smallest_gap_is_found_on_either_side():
    assert smallest_gap_ns(np.array([0, 100]), np.array([57, 40, 93])) == 7
