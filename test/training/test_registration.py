"""Depth seen from another camera: walls stay walls, near hides far, frames are joined."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from llm_mde_core import Camera
from llm_mde_core.geometry import back_project
from llm_mde_train.registration import Registration, find_transform, project

COLOR = Camera(width=64, height=48, fx=60.0, fy=60.0, cx=31.5, cy=23.5)
DEPTH = Camera(width=80, height=60, fx=50.0, fy=50.0, cx=39.5, cy=29.5)
BENT = {
    'plumb_bob': (0.26, -0.95, -0.005, 0.003, 1.16),
    'equidistant': (0.05, -0.01, 0.0, 0.0),
    'rational_polynomial': (0.3, 0.05, 0.001, 0.001, 0.01, 0.6, 0.1, 0.01),
}


def shift(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> tuple[tuple[float, ...], ...]:
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return tuple(tuple(row) for row in matrix.tolist())


def test_one_camera_gives_back_the_depth():
    depth_m = np.random.default_rng(0).uniform(1, 5, (60, 80)).astype(np.float32)
    depth_m[3, 4] = np.nan
    seen = Registration(DEPTH, DEPTH, shift()).apply(depth_m)
    np.testing.assert_allclose(seen, depth_m, rtol=1e-6)


@pytest.mark.parametrize('size', [80, 160, 200])
def test_a_wall_has_no_holes_and_is_nearer_by_the_step_forward(size):
    color = DEPTH.resized(width=size, height=size * 3 // 4)
    seen = Registration(DEPTH, color, shift(z=-0.25)).apply(np.full((60, 80), 2.0, np.float32))
    np.testing.assert_allclose(seen, 1.75, rtol=1e-6)


def test_a_step_to_the_side_moves_near_things_more():
    depth_m = np.full((60, 80), 4.0, np.float32)
    depth_m[20:40, 30:50] = 1.0
    seen = Registration(DEPTH, DEPTH, shift(x=0.1)).apply(depth_m)
    near = np.argwhere(seen == 1.0)
    assert near.min(axis=0).tolist() == [20, 35]  # 50 px * 0.1 m / 1 m
    assert near.max(axis=0).tolist() == [39, 54]
    assert np.isnan(seen[25, 32:35]).all()  # the wall that the thing hid from the depth camera


@pytest.mark.parametrize('model', BENT)
def test_project_undoes_the_rays(model):
    camera = replace(COLOR, distortion_model=model, distortion=BENT[model])
    points = back_project(np.full((48, 64), 3.0, np.float32), camera).reshape(-1, 3)
    rows, columns = np.mgrid[0:48, 0:64].reshape(2, -1)
    known = np.isfinite(points[:, 2])
    assert known.mean() > 0.9
    pixels = project(points[known].astype(np.float64), camera)
    np.testing.assert_allclose(pixels, np.stack([columns, rows], 1)[known], atol=1e-3)


def test_points_beyond_the_lens_model_do_not_fold_back_into_the_image():
    wide = Camera(width=200, height=20, fx=20.0, fy=20.0, cx=99.5, cy=9.5)
    color = replace(COLOR, distortion_model='plumb_bob', distortion=(-0.4, 0, 0, 0, 0))
    depth_m = np.full((20, 200), np.nan, np.float32)
    depth_m[:, 126:130] = 2.0  # 53 to 56 degrees to the right, where k1 alone turns back to 0
    assert np.isnan(Registration(wide, color, shift()).apply(depth_m)).all()


def test_what_is_far_does_not_cover_what_is_near_where_pixels_are_enlarged():
    depth_m = np.full((60, 80), 4.0, np.float32)
    depth_m[:, 40] = 1.0
    twice = DEPTH.resized(width=160, height=120)
    seen = Registration(DEPTH, twice, shift(x=0.1)).apply(depth_m)
    columns = np.flatnonzero((seen == 1.0).any(axis=0))
    assert (seen[:, columns] == 1.0).all()
    assert columns.tolist() == [90, 91]  # 2 * 40 and 100 px * 0.1 m / 1 m


def test_unknown_depth_everywhere_stays_unknown():
    seen = Registration(DEPTH, COLOR, shift()).apply(np.full((60, 80), np.nan, np.float32))
    assert seen.shape == (48, 64)
    assert np.isnan(seen).all()


def transform(parent: str, child: str, *, move=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0, 1.0)):
    return SimpleNamespace(
        header=SimpleNamespace(frame_id=parent),
        child_frame_id=child,
        transform=SimpleNamespace(
            translation=SimpleNamespace(**dict(zip('xyz', move, strict=True))),
            rotation=SimpleNamespace(**dict(zip('xyzw', turn, strict=True))),
        ),
    )


def test_transforms_are_joined_over_the_common_parent():
    half = np.sqrt(0.5)
    tree = [
        transform('/base', 'color', move=(1.0, 0.0, 0.0)),
        transform('base', 'mount', move=(0.0, 2.0, 0.0), turn=(0.0, 0.0, half, half)),
        transform('mount', 'depth', move=(0.0, 0.0, 3.0)),
    ]
    matrix = np.array(find_transform(tree, source='depth', target='color'))
    # x of depth points along y of base: a quarter turn around z
    np.testing.assert_allclose(matrix @ [5, 0, 0, 1], [-1, 7, 3, 1], atol=1e-12)
    back = np.array(find_transform(tree, source='color', target='depth'))
    np.testing.assert_allclose(back @ matrix, np.eye(4), atol=1e-12)


def test_frames_that_nothing_joins():
    tree = [transform('base', 'color'), transform('odom', 'depth')]
    assert find_transform(tree, source='depth', target='color') is None
    np.testing.assert_array_equal(find_transform([], source='a', target='a'), np.eye(4))
