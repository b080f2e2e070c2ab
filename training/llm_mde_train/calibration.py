"""
What a model's confidence is worth.

Confidence is the predicted probability that a depth is within a factor of 1.25 of the truth
(llm_mde_core.estimator), so among pixels of confidence 0.7 seven in ten should be.
"""

from __future__ import annotations

import numpy as np

from llm_mde_train.profiles import Profile

CONFIDENCES = tuple(np.linspace(0.0, 1.0, 11))
KEPT = tuple(np.linspace(1.0, 0.1, 10))


def calibration_error(by_confidence: Profile) -> float:
    """Return how far confidence is from what happens, 0 to 1: mean over pixels, of bins."""
    filled = by_confidence.share > 0
    gap = np.abs(by_confidence.mean - by_confidence.delta1)[filled]
    return float(np.sum(by_confidence.share[filled] * gap) / by_confidence.share.sum())


def kept_abs_rel(certainty: np.ndarray, predicted_m: np.ndarray, true_m: np.ndarray) -> np.ndarray:
    """
    Return abs_rel of the surest parts KEPT of pixels (N,), float64 (10,).

    It falls where certainty knows about errors and stays level where it does not; with the
    negative error itself as `certainty` it falls as far as it can.
    """
    true = true_m.astype(np.float64)
    errors = np.abs(predicted_m - true) / true
    surest = errors[np.argsort(-certainty, kind='stable')]
    means = np.cumsum(surest) / np.arange(1, len(surest) + 1)
    counts = np.maximum(1, np.round(np.array(KEPT) * len(surest)).astype(int))
    return means[counts - 1]
