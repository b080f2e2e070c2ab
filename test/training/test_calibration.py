"""Confidence against what happens: a model that is right about itself and some that are not."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from training.conftest import plain_sample

from llm_mde_core import DepthEstimator
from llm_mde_core.frame import confidence_of
from llm_mde_train.calibration import (
    CONFIDENCES,
    calibration_error,
    count_spreads,
    fit_spread,
    kept_abs_rel,
    spread_counts,
    write_spread_factor,
)
from llm_mde_train.profiles import profile


def errors_as_promised(confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions and truths: right in as many cases as `confidence` (N,) says."""
    right = np.random.default_rng(0).random(len(confidence)) < confidence
    true = np.full(len(confidence), 2.0)
    return np.where(right, 2.1, 4.0), true


def test_honest_confidence_has_no_calibration_error():
    confidence = np.random.default_rng(1).random(50_000)
    predicted, true = errors_as_promised(confidence)
    honest = profile(confidence, predicted, true, limits=CONFIDENCES)
    assert calibration_error(honest) < 0.01
    assert (np.diff(honest.abs_rel) < 0).all()  # error falls as confidence rises


def test_boast_is_measured():
    predicted, true = errors_as_promised(np.full(50_000, 0.5))
    boast = profile(np.full(50_000, 0.9), predicted, true, limits=CONFIDENCES)
    assert calibration_error(boast) == pytest.approx(0.4, abs=0.01)


def test_surest_part_by_hand():
    true = np.full(10, 2.0)
    predicted = true * (1 + np.arange(10) / 10)  # errors 0.0, 0.1 ... 0.9
    knows = kept_abs_rel(-np.arange(10.0), predicted, true)
    np.testing.assert_allclose(knows, np.linspace(0.45, 0.0, 10))
    wrong = kept_abs_rel(np.arange(10.0), predicted, true)
    np.testing.assert_allclose(wrong, np.linspace(0.45, 0.9, 10))
    np.testing.assert_allclose(kept_abs_rel(np.ones(1), np.array([3.0]), np.array([2.0])), 0.5)


def scene(seed: int, *, true_factor: float, count: int = 200_000) -> np.ndarray:
    """Return the counts of a scene whose errors are `true_factor` times what the model says."""
    rng = np.random.default_rng(seed)
    said = np.exp(rng.uniform(-3.0, 0.0, count))
    confidence = confidence_of(torch.from_numpy(said).log()).numpy()
    error = rng.laplace(0.0, said * true_factor)
    return count_spreads(confidence, 2.0 * np.exp(error), np.full(count, 2.0))


@pytest.mark.parametrize('factor', [0.4, 1.0, 2.5])
def test_the_factor_of_the_errors_is_found(factor: float):
    fit = fit_spread({str(seed): scene(seed, true_factor=factor) for seed in range(3)})
    assert fit.factor == pytest.approx(factor, rel=0.02)
    assert fit.error_after < 0.01
    assert fit.error_left_out < 0.01
    if factor != 1.0:
        assert fit.error_before > 0.1
        assert fit.helps


def test_the_error_is_the_one_that_an_evaluation_shows():
    rng = np.random.default_rng(4)
    confidence = rng.uniform(0.2, 0.99, 100_000)
    predicted, true = errors_as_promised(confidence**2)
    shown = calibration_error(profile(confidence, predicted, true, limits=CONFIDENCES))
    fit = fit_spread({'one': count_spreads(confidence, predicted, true)})
    assert fit.error_before == pytest.approx(shown, abs=0.005)
    assert fit.error_after < shown
    assert math.isnan(fit.error_left_out)
    assert not fit.helps  # nobody knows


def test_scenes_that_contradict_each_other_help_no_third_one():
    scenes = {'easy': scene(0, true_factor=0.3), 'hard': scene(1, true_factor=3.0)}
    fit = fit_spread(scenes)
    assert fit.error_left_out > fit.error_before
    assert not fit.helps


def test_utter_certainty_and_utter_doubt_are_counted():
    counts = count_spreads(np.array([0.0, 1.0]), np.array([2.0, 2.0]), np.array([2.0, 9.0]))
    assert counts.sum(axis=1) == pytest.approx([1.0, 0.5])
    assert counts[:, -1] == pytest.approx([0.5, 0.5])  # doubt, though it was right
    assert counts[:, 0] == pytest.approx([0.5, 0.0])


def test_counts_of_a_model_are_by_scene_and_without_the_unknown(tiny_model):
    estimator = DepthEstimator(tiny_model, device='cpu')
    samples = [
        plain_sample(2.0, scene='kitchen'),
        plain_sample(1.0, scene='kitchen'),
        plain_sample(math.nan, scene='cellar'),
    ]
    found = spread_counts(estimator, samples)
    assert list(found) == ['kitchen']
    said = [estimator.infer(sample.rgb, sample.camera) for sample in samples[:2]]
    share, right = found['kitchen']
    assert share.sum() == pytest.approx(1.0)
    ratio = [one.depth_m / sample.depth_m for one, sample in zip(said, samples, strict=False)]
    within = np.mean([(np.abs(np.log(each)) < math.log(1.25)).mean() for each in ratio])
    assert right.sum() == pytest.approx(within)


def test_no_scene_is_an_error():
    with pytest.raises(ValueError, match='no frame with known depth'):
        fit_spread({})


def test_the_factor_is_written_into_the_configuration_and_multiplied(tmp_path):
    file = tmp_path / 'config.json'
    file.write_text(json.dumps({'model_type': 'llm_mde', 'bottleneck_dim': 48}))
    assert write_spread_factor(tmp_path, 1.5) == 1.5
    assert write_spread_factor(tmp_path, 2.0) == 3.0
    written = {'model_type': 'llm_mde', 'bottleneck_dim': 48, 'spread_factor': 3.0}
    assert json.loads(file.read_text()) == written
    assert [path.name for path in tmp_path.iterdir()] == ['config.json']
