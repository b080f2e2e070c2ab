"""Confidence against what happens: a model that is right about itself and some that are not."""

from __future__ import annotations

import numpy as np
import pytest

from llm_mde_train.calibration import CONFIDENCES, calibration_error, kept_abs_rel
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
