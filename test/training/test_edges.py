"""Edges of depth: sharp ones, blurred ones, missing ones, false ones."""

from __future__ import annotations

from math import nan

import cv2
import numpy as np
import pytest

from llm_mde_train.edges import EDGE_FIGURES, edge_figures


def box() -> np.ndarray:
    """Return 1 m in front of 3 m, 120 x 160: an edge is looked for two pixels apart."""
    depth_m = np.full((120, 160), 3.0, np.float32)
    depth_m[40:80, 50:110] = 1.0
    return depth_m


def figures(predicted_m: np.ndarray, true_m: np.ndarray) -> dict[str, float]:
    return edge_figures(predicted_m, true_m, max_depth_m=10.0)


def test_truth_at_any_scale_is_sharp():
    for factor in (1.0, 0.5, 3.0):
        found = figures(factor * box(), box())
        sharp = {'edge_sharpness': 1.0, 'edge_f1': 1.0, 'flying_pixels': 0.0}
        assert found == pytest.approx(sharp)


def test_half_the_step_in_logarithms_is_half_as_sharp():
    assert figures(np.sqrt(box()), box())['edge_sharpness'] == pytest.approx(0.5)


def test_blur_makes_edges_soft_and_pixels_fly():
    blurs = [figures(cv2.GaussianBlur(box(), (0, 0), sigma), box()) for sigma in (0.5, 2.0, 6.0)]
    sharpness = [found['edge_sharpness'] for found in blurs]
    assert 1.0 > sharpness[0] > sharpness[1] > sharpness[2] > 0.0
    assert blurs[0]['flying_pixels'] < 0.2 < 0.4 < blurs[2]['flying_pixels']
    assert blurs[2]['edge_f1'] < blurs[0]['edge_f1']


def test_flat_prediction_has_no_edge():
    found = figures(np.full_like(box(), 2.0), box())
    assert (found['edge_sharpness'], found['edge_f1']) == (0.0, 0.0)


def test_step_the_wrong_way_is_no_edge():
    found = figures(1.0 / box(), box())
    assert (found['edge_sharpness'], found['edge_f1']) == (0.0, 0.0)


def test_false_edges_lower_f1_only():
    predicted_m = box()
    predicted_m[90:110, 20:140] = 1.0
    found = figures(predicted_m, box())
    assert found['edge_sharpness'] == pytest.approx(1.0)
    assert 0.2 < found['edge_f1'] < 0.8


def test_seam_that_the_sensor_left_unknown_is_bridged():
    true_m = box()
    true_m[:, 50] = nan
    assert figures(box(), true_m)['edge_sharpness'] == pytest.approx(1.0)
    only_right = true_m.copy()
    only_right[:, :51] = nan
    assert figures(box(), only_right)['edge_sharpness'] == pytest.approx(1.0)


def test_no_edge_has_no_figures():
    found = figures(box(), np.full_like(box(), 2.0))
    assert np.isnan([found['edge_sharpness'], found['flying_pixels']]).all()
    assert found['edge_f1'] == 0.0  # what was predicted is false
    nothing = figures(box(), np.full_like(box(), nan))
    assert list(nothing) == list(EDGE_FIGURES)
    assert np.isnan(list(nothing.values())).all()


def test_depth_out_of_range_makes_no_edge():
    found = edge_figures(box(), box(), max_depth_m=2.0)
    assert np.isnan(list(found.values())).all()
