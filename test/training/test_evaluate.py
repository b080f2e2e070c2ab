"""Judging an estimator and a constant, the whole way from samples to averages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import nan
import threading

import numpy as np
import pytest

from llm_mde_core import Camera, DepthEstimator
from llm_mde_train.evaluate import evaluate, evaluate_constant, judge_frames, median_depth_m
from llm_mde_train.samples import Sample


@pytest.fixture
def estimator(tiny_model) -> DepthEstimator:
    return DepthEstimator(tiny_model, device='cpu')


@pytest.fixture
def perfect(estimator, rgb) -> Sample:
    """Return a sample whose truth is what the estimator says."""
    camera = Camera.from_hfov(width=64, height=48, hfov_deg=60.0)
    depth_m = estimator.infer(rgb, camera).depth_m
    return Sample(rgb=rgb, depth_m=depth_m, camera=camera, scene='a')


def test_estimator_that_says_the_truth_has_no_error(estimator, perfect):
    found = evaluate(estimator, [perfect])
    assert found['a'] == found['mean']
    assert (found['a']['abs_rel'], found['a']['delta1'], found['a']['coverage']) == (0.0, 1.0, 1.0)


def test_estimator_that_says_half_is_half_wrong_and_scenes_count_alike(estimator, perfect):
    doubled = replace(perfect, depth_m=2 * perfect.depth_m, scene='b', max_depth_m=100.0)
    found = evaluate(estimator, [perfect, doubled, doubled])
    assert found['b']['abs_rel'] == pytest.approx(0.5, rel=1e-5)
    assert found['b']['delta1'] == 0.0
    assert found['b']['rmse'] == pytest.approx(
        np.sqrt(np.mean(np.square(perfect.depth_m))), rel=1e-4
    )
    assert found['mean']['abs_rel'] == pytest.approx(0.25, rel=1e-5)


def plain(depth_m: list[float], scene: str) -> Sample:
    depths = np.array([depth_m], np.float32)
    camera = Camera.from_hfov(width=depths.shape[1], height=1, hfov_deg=60.0)
    rgb = np.zeros((*depths.shape, 3), np.uint8)
    return Sample(rgb=rgb, depth_m=depths, camera=camera, scene=scene, max_depth_m=5.0)


def test_constant_by_hand():
    samples = [plain([1.0, 4.0, nan, 6.0], 'a'), plain([2.0, 2.0, nan, nan], 'b')]
    found = evaluate_constant(2.0, samples)
    assert found['a']['abs_rel'] == pytest.approx((1.0 + 0.5) / 2)
    assert found['b']['abs_rel'] == 0.0
    assert found['mean']['abs_rel'] == pytest.approx(0.375)


def test_crop_reaches_estimator_constant_and_median(estimator):
    """Defect 3: with the Eigen crop the border has no say."""
    depth_m = np.full((480, 640), 9.0, np.float32)
    depth_m[45:471, 41:601] = 2.0
    camera = Camera.from_hfov(width=640, height=480, hfov_deg=60.0)
    sample = Sample(np.zeros((480, 640, 3), np.uint8), depth_m, camera, 'a')
    assert evaluate_constant(2.0, [sample], crop='eigen')['a']['abs_rel'] == 0.0
    assert evaluate_constant(2.0, [sample])['a']['abs_rel'] > 0.0
    assert median_depth_m([sample], crop='eigen') == 2.0
    inside = estimator.infer(sample.rgb, camera).depth_m[45:471, 41:601].astype(np.float64)
    assert evaluate(estimator, [sample], crop='eigen')['a']['abs_rel'] == pytest.approx(
        np.mean(np.abs(inside - 2.0) / 2.0)
    )


@dataclass(frozen=True)
class SlowFrame:
    """Says who decodes it."""

    sample: Sample
    threads: list[str]
    scene: str = 'a'
    stamp_ns: int = 0

    def load(self) -> Sample:
        self.threads.append(threading.current_thread().name)
        return self.sample


def test_next_frames_are_decoded_while_one_is_judged(estimator, perfect):
    threads = []
    frames = [SlowFrame(perfect, threads) for _ in range(3)]
    assert evaluate(estimator, frames)['a']['abs_rel'] == 0.0
    assert len(list(judge_frames(estimator, frames, constant_m=2.0))) == 3
    assert len(threads) == 6
    assert 'MainThread' not in threads


def test_frames_without_known_depth_are_left_out(estimator, perfect):
    blind = replace(perfect, depth_m=np.full_like(perfect.depth_m, nan), scene='b')
    assert set(evaluate(estimator, [perfect, blind])) == {'a', 'mean'}
    with pytest.raises(ValueError, match='no frame with known depth'):
        evaluate(estimator, [blind])


def test_median_is_of_all_known_depths_in_range():
    samples = [plain([1.0, 2.0, nan, 9.0], 'a'), plain([4.0, 0.0, nan, nan], 'b')]
    assert median_depth_m(samples) == 2.0
    with pytest.raises(ValueError, match='no frame with known depth'):
        median_depth_m([plain([nan, 9.0], 'a')])
