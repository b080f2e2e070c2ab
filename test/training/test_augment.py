"""Changes of a photograph keep its geometry: metres, alignment of colour and depth, mirrors."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import numpy as np
import pytest

from llm_mde_core import Camera
from llm_mde_train.augment import CUT_DEPTH_PART, change_light, crop_to, cut_depth
from llm_mde_train.samples import Sample

CAMERA = Camera(width=320, height=240, fx=260.0, fy=262.0, cx=159.5, cy=119.5)
PANEL_WIDTH_M, PANEL_M, WALL_M = 0.5, 2.0, 4.0


def panel() -> Sample:
    """Return a white panel 0.5 m wide and high at 2 m, before a black wall at 4 m."""
    rays = CAMERA.rays() * PANEL_M
    near = (np.abs(rays) <= PANEL_WIDTH_M / 2).all(axis=2)
    return Sample(
        rgb=np.repeat(near[..., None] * np.uint8(255), 3, axis=2),
        depth_m=np.where(near, PANEL_M, WALL_M).astype(np.float32),
        camera=CAMERA,
        scene='panel',
    )


def crops(sample: Sample, sizes, *, smallest: float = 0.6):
    """Yield crops, `smallest` to 1 of the largest possible, each by a generator of its own."""
    for seed, (height, width) in enumerate(sizes):
        rng = np.random.default_rng(seed)
        widest_view = min(CAMERA.height / height, CAMERA.width / width)
        focal_px = CAMERA.focal_px / (widest_view * rng.uniform(smallest, 1.0))
        yield crop_to(sample, rng, height=height, width=width, focal_px=focal_px)


@pytest.mark.parametrize('size', [(96, 128), (240, 320), (288, 384), (90, 90), (160, 96)])
def test_focal_length_follows_the_crop(size):
    whole = 0
    for rgb, depth_m, focal_px in crops(panel(), [size] * 40):
        assert rgb.shape == (*size, 3)
        assert rgb.dtype == np.uint8
        assert depth_m.shape == size
        assert depth_m.dtype == np.float32
        near = depth_m == PANEL_M
        if near[:, [0, -1]].any() or not near.any():
            continue  # the window cuts the panel
        whole += 1
        metres = np.median(near.sum(axis=1)[near.any(axis=1)]) * PANEL_M / focal_px
        pixels_m = PANEL_M / focal_px + 1.5 * PANEL_M / CAMERA.fx  # one here, 1.5 of the original
        assert metres == pytest.approx(PANEL_WIDTH_M, abs=pixels_m)
    assert whole >= 4


@pytest.mark.parametrize('wanted_px', [60.0, 130.5, 200.0, 400.0])
def test_the_window_gives_the_wanted_focal_length_or_the_widest_view(wanted_px):
    rng = np.random.default_rng(0)
    _, _, focal_px = crop_to(panel(), rng, height=120, width=160, focal_px=wanted_px)
    assert focal_px == pytest.approx(max(wanted_px, CAMERA.focal_px / 2), rel=0.01)


def middle(weights: np.ndarray) -> np.ndarray:
    """Return the centre of mass (row, column)."""
    return np.array([np.average(axis, weights=weights) for axis in np.indices(weights.shape)])


@pytest.mark.parametrize('shrink', [1.0, 2.5, 3.0, 5.0])
def test_depth_lies_under_its_colour(shrink):
    size = (round(240 / shrink), round(320 / shrink))
    offsets = [
        middle(rgb[..., 0].astype(float)) - middle((depth_m == PANEL_M).astype(float))
        for rgb, depth_m, _ in crops(panel(), [size] * 20)
    ]
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.1  # of a pixel; mirrors would hide columns


def test_depth_is_picked_never_mixed():
    for _, depth_m, _ in crops(panel(), [(100, 130), (300, 400)] * 5):
        assert set(np.unique(depth_m[np.isfinite(depth_m)])) == {PANEL_M, WALL_M}


def test_colour_and_depth_are_mirrored_together():
    ramp = np.broadcast_to(np.linspace(1.0, 5.0, 320, dtype=np.float32), (240, 320)).copy()
    rgb = np.repeat((ramp * 40).astype(np.uint8)[..., None], 3, axis=2)
    sample = replace(panel(), rgb=rgb, depth_m=ramp)
    directions = set()
    for light, depth_m, _ in crops(sample, [(120, 160)] * 12, smallest=1.0):
        known = np.isfinite(depth_m)
        assert np.abs(light[..., 0][known] - depth_m[known] * 40).max() < 3
        directions.add(bool(np.nanmean(depth_m[:, :20]) < np.nanmean(depth_m[:, -20:])))
    assert directions == {True, False}


def test_unknown_stays_unknown_and_turning_adds_no_depth():
    sample = panel()
    sample.depth_m[:, :160] = nan
    for _, depth_m, _ in crops(sample, [(120, 160)] * 6):
        assert 0.1 < np.isnan(depth_m).mean() < 0.9
    plain = replace(panel(), depth_m=np.full((240, 320), 3.0, np.float32))
    for _, depth_m, _ in crops(plain, [(240, 320)] * 6, smallest=1.0):
        assert np.isnan(depth_m).mean() < 0.1
        assert np.nanmin(depth_m) == np.nanmax(depth_m) == 3.0


def test_cropping_leaves_the_sample_as_it_was():
    sample, again = panel(), panel()
    list(crops(sample, [(96, 128)] * 3))
    np.testing.assert_array_equal(sample.rgb, again.rgb)
    np.testing.assert_array_equal(sample.depth_m, again.depth_m)


def test_changed_light_is_another_image_of_the_same_kind(rgb):
    before = rgb.copy()
    grey = 0
    for seed in range(40):
        changed = change_light(rgb, np.random.default_rng(seed))
        assert (changed.shape, changed.dtype) == (rgb.shape, np.uint8)
        assert (changed != rgb).mean() > 0.2
        alike = np.corrcoef(changed.ravel(), rgb.ravel())[0, 1]
        assert alike > 0.7
        grey += int(np.ptp(changed.astype(int), axis=2).max() == 0)
    assert 0 < grey < 15
    np.testing.assert_array_equal(rgb, before)


def test_same_seed_same_light(rgb):
    first, second, other = (change_light(rgb, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_cut_depth_pastes_the_depth_where_it_is_and_nowhere_else():
    """Black is 0, white the range; the same place in colour and depth; unknown stays colour."""
    depth_m = np.tile(np.linspace(0.5, 12.0, 320, dtype=np.float32), (240, 1))
    depth_m[:, ::7] = np.nan
    rgb = np.zeros((240, 320, 3), np.uint8)
    rgb[..., 0] = 255
    expected = (np.nan_to_num(depth_m) / 10.0 * 255.0).clip(0, 255).round().astype(np.uint8)
    sizes = []
    for seed in range(60):
        pasted = cut_depth(rgb, depth_m, np.random.default_rng(seed), max_depth_m=10.0)
        changed = (pasted != rgb).any(axis=2)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        if not len(rows):  # one pixel, unknown
            continue
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        known = np.isfinite(depth_m[window])
        assert (pasted[window][known] == expected[window][known][:, None]).all()
        assert (pasted[window][~known] == (255, 0, 0)).all()
        sizes.append((len(rows), len(columns)))
        assert len(rows) <= CUT_DEPTH_PART * (240 - rows[0]) + 1
        assert len(columns) <= CUT_DEPTH_PART * (320 - columns[0]) + 2
    assert (rgb[..., 0] == 255).all()
    assert max(rows for rows, _ in sizes) > 100  # not the single row of a min for a max
    assert max(columns for _, columns in sizes) > 130
