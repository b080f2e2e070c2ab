"""Judgement by hand: means over frames, then scenes; errors by distance."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from training.conftest import plain_sample

from llm_mde_core import DepthEstimator
from llm_mde_train.held_out import judge, predictor
from llm_mde_train.metrics import METRICS
from llm_mde_train.profiles import DISTANCES_M


def guess(sample):
    return np.where(sample.depth_m < 1.0, 1.0, 6.0)


def near_and_far():
    depth_m = np.full((48, 64), 0.5, np.float32)
    depth_m[24:] = 5.0
    return depth_m


def test_errors_per_frame_and_by_distance():
    samples = [plain_sample(near_and_far()), plain_sample(5.0), plain_sample(np.nan)]
    judged = judge(guess, samples)
    assert [frame['abs_rel'] for frame in judged.errors] == pytest.approx([0.6, 0.2])
    assert set(judged.errors[0]) == set(METRICS)
    assert judged.mean('abs_rel') == pytest.approx(0.4)
    by_distance = dict(zip(DISTANCES_M, judged.by_distance().abs_rel, strict=False))
    assert by_distance[0.0] == pytest.approx(1.0)
    assert by_distance[4.0] == pytest.approx(0.2)
    assert math.isnan(by_distance[1.0])
    shown = judged.figures()
    assert shown['abs_rel'] == pytest.approx(0.4)
    assert shown['abs_rel_low'] < 0.4 < shown['abs_rel_high']
    assert shown['delta1'] == pytest.approx(0.75)


def test_scenes_count_alike_whatever_their_frames():
    hall = [plain_sample(5.0, scene='hall') for _ in range(3)]
    judged = judge(guess, [*hall, plain_sample(near_and_far(), scene='lab')])
    assert judged.mean('abs_rel') == pytest.approx((0.2 + 0.6) / 2)
    assert judged.by_distance().share[0] == pytest.approx(0.25)
    figures = judged.figures()
    assert figures['abs_rel_low'] == pytest.approx(0.2)  # both drawn from the hall
    assert figures['abs_rel_high'] == pytest.approx(0.6)


def test_judging_says_how_far_it_is():
    told = []
    judge(guess, [plain_sample(5.0), plain_sample(np.nan)], notify=lambda: told.append(1))
    assert len(told) == 2


def test_frames_without_depth_cannot_be_judged():
    with pytest.raises(ValueError, match='none of 1 held-out frames knows any depth in range'):
        judge(lambda sample: sample.depth_m, [plain_sample(np.nan)])


def test_what_an_estimator_leaves_unknown_counts_as_farthest(tiny_model):
    estimator = DepthEstimator(copy.deepcopy(tiny_model), device='cpu', compile='off')
    sample = plain_sample(5.0)
    estimator.model.head.out[-1].bias[0] += 50.0  # beyond 10 m everywhere
    assert np.isnan(estimator.infer(sample.rgb, sample.camera).depth_m).all()
    judged = judge(predictor(estimator), [sample])
    assert judged.mean('abs_rel') == pytest.approx(1.0)
    assert judged.mean('coverage') == 1.0
