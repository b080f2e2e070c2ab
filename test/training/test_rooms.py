"""Rendered rooms: exact geometry, reproducible seeds, images worth learning from."""

import numpy as np
import pytest
import torch

from llm_mde_core.geometry import Camera, back_project
from llm_mde_train.room_layouts import is_free, sample_scene
from llm_mde_train.room_scene import (
    BALL,
    BOX,
    TUBE,
    Dice,
    Light,
    Pose,
    Scene,
    Solid,
    Surface,
    turned,
)
from llm_mde_train.room_trace import ViewedSolids, _trace, trace, view_solids
from llm_mde_train.rooms import render_rooms, render_scenes

CAMERA = Camera.from_hfov(width=80, height=60, hfov_deg=62)
WHITE = Surface(tint=(0.8, 0.8, 0.8), contrast=0.0)


def depth_of(solids: list[Solid], pose: Pose, camera: Camera = CAMERA) -> np.ndarray:
    """Render depth in a hall of 20 x 20 x 6 m that starts at the origin."""
    room = Solid(BOX, (10.0, 10.0, 3.0), (10.0, 10.0, 3.0), WHITE)
    scene = Scene(room, solids, [Light((10.0, 10.0, 5.5), 20.0)])
    _, depth = render_scenes([scene], [pose], [camera])
    return depth[0].numpy()


def slab(x: float, yaw_deg: float = 0.0, pitch_deg: float = 0.0) -> Solid:
    """Return a 20 cm thick wall across the view along x, its front at x where not turned."""
    return Solid(BOX, (x + 0.1, 10.0, 3.0), (0.1, 9.0, 9.0), WHITE, turned(yaw_deg, pitch_deg))


EYE = (5.0, 10.0, 3.0)
ALONG_X = Pose.looking(EYE, azimuth_deg=0.0)


def test_wall_at_two_metres_is_two_metres_everywhere():
    np.testing.assert_allclose(depth_of([slab(7.0)], ALONG_X), 2.0, atol=1e-4)


def test_room_wall_is_where_it_is():
    np.testing.assert_allclose(
        depth_of([], Pose.looking((17, 10, 3), azimuth_deg=0)), 3.0, atol=1e-4
    )


@pytest.mark.parametrize(('azimuth', 'tilt', 'roll'), [(25, 0, 0), (0, -30, 0), (-20, 15, 40)])
def test_wall_seen_at_an_angle_is_its_plane(azimuth, tilt, roll):
    pose = Pose.looking(EYE, azimuth_deg=azimuth, tilt_deg=tilt, roll_deg=roll)
    points = back_project(depth_of([slab(7.0)], pose), CAMERA) @ pose.rotation.T
    np.testing.assert_allclose(points[..., 0], 2.0, atol=1e-4)


def test_oblique_plane_stays_coplanar():
    points = back_project(depth_of([slab(8.0, yaw_deg=35, pitch_deg=20)], ALONG_X), CAMERA)
    points = points.reshape(-1, 3) - points.reshape(-1, 3).mean(0)
    assert np.linalg.svd(points, compute_uv=False)[2] / np.sqrt(len(points)) < 1e-4


def test_camera_one_metre_above_the_floor_looking_down():
    depth = depth_of([], Pose.looking((10, 10, 1.0), azimuth_deg=0, tilt_deg=-90))
    np.testing.assert_allclose(depth, 1.0, atol=1e-4)


def test_ball_and_tube_have_their_radius():
    camera = Camera(81, 61, 70.0, 70.0, 40.0, 30.0)
    for kind in (BALL, TUBE):
        solid = Solid(kind, (8.0, 10.0, 3.0), (0.5, 0.5, 0.5), WHITE)
        depth = depth_of([solid], ALONG_X, camera)
        assert depth[30, 40] == pytest.approx(2.5, abs=1e-4)
        points = back_project(depth, camera)[depth < 4] - (0, 0, 3.0)
        radius = np.linalg.norm(points if kind == BALL else points[:, [0, 2]], axis=1)
        inside = np.abs(points[:, 1]) < 0.4999  # not on the ends of the tube
        np.testing.assert_allclose(radius[inside], 0.5, atol=2e-3)


def test_tube_seen_from_above_ends_at_its_height():
    solid = Solid(TUBE, (10.0, 10.0, 0.25), (0.3, 0.3, 0.25), WHITE)
    pose = Pose.looking((10.1, 10.0, 2.0), azimuth_deg=0, tilt_deg=-90)
    depth = depth_of([solid], pose)
    assert depth[30, 40] == pytest.approx(1.5, abs=1e-4)
    assert depth[0, 0] == pytest.approx(2.0, abs=1e-4)


def test_nearer_solid_hides_the_farther_whatever_the_order():
    near, far = slab(6.0), slab(7.0)
    for solids in ([near, far], [far, near]):
        np.testing.assert_allclose(depth_of(solids, ALONG_X), 1.0, atol=1e-4)


def test_solids_behind_or_around_the_image_do_not_change_it():
    behind = Solid(BOX, (3.0, 10.0, 3.0), (1.0, 1.0, 1.0), WHITE)
    beside = Solid(BOX, (5.5, 13.0, 3.0), (2.0, 1.0, 1.0), WHITE)
    np.testing.assert_array_equal(
        depth_of([behind, beside, slab(7.0)], ALONG_X), depth_of([slab(7.0)], ALONG_X)
    )


def sample_scenes(count: int):
    """Return scenes and poses."""
    return zip(*(sample_scene(Dice(f'{i}')) for i in range(count)), strict=True)


def test_a_batch_gives_what_single_images_give():
    scenes, poses = sample_scenes(3)
    lights, depths = render_scenes(scenes, poses, [CAMERA] * 3)
    for scene, pose, light, depth in zip(scenes, poses, lights, depths, strict=True):
        light_alone, depth_alone = render_scenes([scene], [pose], [CAMERA])
        torch.testing.assert_close(depth_alone[0], depth)
        torch.testing.assert_close(light_alone[0], light, atol=1e-3, rtol=1e-3)


def test_windows_of_the_cpu_give_what_whole_images_on_a_gpu_give():
    scenes, poses = sample_scenes(6)
    view = view_solids([scene.everything() for scene in scenes], poses)
    x, y = torch.linspace(-0.6, 0.6, 80).expand(6, -1), torch.linspace(-0.4, 0.4, 60).expand(6, -1)
    inverse, number = trace(view, x, y)
    tensors = ViewedSolids(*(torch.from_numpy(part) for part in vars(view).values()))
    inverse_torch, number_torch = _trace(torch, tensors, x, y)
    torch.testing.assert_close(inverse_torch, inverse)
    assert (number == number_torch).float().mean() > 0.999


def test_shadow_falls_under_a_plate():
    plate = Solid(BOX, (10.0, 10.0, 1.0), (0.5, 0.5, 0.01), WHITE)
    room = Solid(BOX, (10.0, 10.0, 3.0), (10.0, 10.0, 3.0), WHITE)
    lights = [Light((10.0, 10.0, 5.5), 20.0)]
    pose = Pose.looking_at((8.0, 10.0, 0.4), (10.0, 10.0, 0.0))
    (bare, shaded), _ = render_scenes(
        [Scene(room, [], lights), Scene(room, [plate], lights)], [pose] * 2, [CAMERA] * 2
    )
    below = (slice(None), slice(29, 31), slice(38, 42))
    assert shaded[below].mean() < 0.7 * bare[below].mean()


@pytest.fixture(scope='module')
def rooms():
    return render_rooms(seed=3, batch=24, height=60, width=80)


def test_batch_has_the_promised_shapes(rooms):
    assert rooms.rgb.shape == (24, 60, 80, 3)
    assert rooms.rgb.dtype == torch.uint8
    assert rooms.depth_m.shape == (24, 60, 80)
    assert rooms.depth_m.dtype == torch.float32
    for camera, fx, cy in zip(rooms.cameras, rooms.fx.tolist(), rooms.cy.tolist(), strict=True):
        assert (camera.width, camera.height) == (80, 60)
        assert (camera.fx, camera.cy) == pytest.approx((fx, cy))


def test_same_seed_same_rooms_other_seed_others(rooms):
    again = render_rooms(seed=3, batch=4, height=60, width=80)
    assert torch.equal(again.rgb, rooms.rgb[:4])
    assert torch.equal(again.depth_m, rooms.depth_m[:4])
    other = render_rooms(seed=4, batch=4, height=60, width=80)
    assert not torch.equal(other.depth_m, rooms.depth_m[:4])
    assert not torch.equal(rooms.depth_m[0], rooms.depth_m[1])


def test_depth_is_known_positive_and_spread(rooms):
    known = torch.isfinite(rooms.depth_m)
    assert known.float().mean() > 0.99
    assert (rooms.depth_m[known] > 0.02).all()
    medians = rooms.depth_m.flatten(1).nanmedian(1).values
    assert medians.max() > 2 * medians.min()


def test_pictures_are_neither_flat_nor_burnt(rooms):
    pictures = rooms.rgb.float().flatten(1)
    assert 60 < pictures.mean() < 190
    assert (pictures.std(1) > 8).float().mean() > 0.8
    assert pictures.std(1).mean() > 25
    assert (pictures >= 255).float().mean() < 0.2


def test_cameras_are_in_free_space():
    free = [
        is_free(scene, pose.position) for scene, pose in map(sample_scene, map(Dice, range(20)))
    ]
    assert np.mean(free) > 0.9
