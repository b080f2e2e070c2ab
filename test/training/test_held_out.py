"""Judgement by hand: means over frames, errors by distance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from training.conftest import plain_sample

from llm_mde_train.held_out import DISTANCES_M, judge


def test_errors_per_frame_and_by_distance():
    near_and_far = np.full((48, 64), 0.5, np.float32)
    near_and_far[24:] = 5.0
    samples = [plain_sample(near_and_far), plain_sample(5.0), plain_sample(np.nan)]
    judged = judge(lambda sample: np.where(sample.depth_m < 1.0, 1.0, 6.0), samples)
    assert [frame['abs_rel'] for frame in judged.frames] == pytest.approx([0.6, 0.2])
    assert judged.mean('abs_rel') == pytest.approx(0.4)
    by_distance = dict(zip(DISTANCES_M, judged.by_distance, strict=False))
    assert by_distance[0.0] == pytest.approx(1.0)
    assert by_distance[4.0] == pytest.approx(0.2)
    assert math.isnan(by_distance[1.0])
    shown = judged.figures()
    assert shown['abs_rel'] == pytest.approx(0.4)
    assert shown['abs_rel_low'] < 0.4 < shown['abs_rel_high']
    assert shown['delta1'] == pytest.approx(0.75)


def test_frames_without_depth_cannot_be_judged():
    with pytest.raises(ValueError, match='none of 1 held-out frames knows any depth in range'):
        judge(lambda sample: sample.depth_m, [plain_sample(np.nan)])
