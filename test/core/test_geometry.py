import math
import tracemalloc
import weakref

import cv2
import numpy as np
import pytest

from llm_mde_core import geometry
from llm_mde_core.geometry import Camera, back_project, project, resize_depth
from llm_mde_core.lens import undistort

PLUMB_BOB_4 = (-0.28, 0.09, 0.0012, -0.0008)
PLUMB_BOB = (*PLUMB_BOB_4, -0.012)
RATIONAL = (0.45, -0.11, 0.0006, -0.0004, -0.004, 0.81, -0.14, -0.021)
PRISM = (*RATIONAL, 0.002, -0.001, -0.0015, 0.0008)
TILTED = (*PRISM, 0.03, -0.02)
EQUIDISTANT = (-0.021, 0.007, -0.004, 0.0006)
LENSES = [
    ('plumb_bob', PLUMB_BOB_4),
    ('plumb_bob', PLUMB_BOB),
    ('rational_polynomial', RATIONAL),
    ('rational_polynomial', PRISM),
    ('rational_polynomial', TILTED),
    ('equidistant', EQUIDISTANT),
]
TILTED_WALL = np.array([0.3, -0.2, 1.0]) / math.sqrt(1.13)  # its normal


def make_camera(model='', distortion=(), **overrides):
    fields = {'width': 160, 'height': 120, 'fx': 110.0, 'fy': 112.0, 'cx': 83.3, 'cy': 57.9}
    return Camera(**(fields | overrides), distortion_model=model, distortion=distortion)


def render_wall(camera, normal, distance_m):
    """Return the depth along z of a plane, `normal . point = distance_m`, in every pixel."""
    rays = np.dstack([camera.rays(), np.ones((camera.height, camera.width))])
    return (distance_m / (rays @ normal)).astype(np.float32)


def project_with_cv2(rays, camera):
    points = np.dstack([rays, np.ones(rays.shape[:2])]).reshape(-1, 1, 3).astype(np.float64)
    matrix = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
    fisheye = camera.distortion_model == 'equidistant'
    project = cv2.fisheye.projectPoints if fisheye else cv2.projectPoints
    pixels, _ = project(points, np.zeros(3), np.zeros(3), matrix, np.array(camera.distortion))
    return pixels.reshape(camera.height, camera.width, 2)


def pixel_grid(camera):
    return np.dstack(np.meshgrid(np.arange(camera.width), np.arange(camera.height)))


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        ({'width': 0}, '0 x 120'),
        ({'fx': 0.0}, 'fx=0.0'),
        ({'fy': -5.0}, 'fy=-5.0'),
        ({'cx': math.nan}, 'cx is nan'),
        ({'fx': math.inf}, 'fx is inf'),
        ({'model': 'brown'}, "unknown distortion model 'brown'"),
        ({'model': 'plumb_bob', 'distortion': (0.1,)}, '1 coefficients, expected 4 or 5'),
        ({'model': '', 'distortion': (0.1,)}, '1 coefficients, expected 0'),
        ({'model': 'equidistant', 'distortion': (0, math.nan, 0, 0)}, 'must be finite'),
    ],
)
def test_a_camera_that_cannot_be_is_refused_with_its_value(overrides, message):
    with pytest.raises(ValueError, match=message):
        make_camera(**overrides)


def test_a_camera_is_hashable_whatever_sequence_the_coefficients_come_in():
    assert hash(make_camera('plumb_bob', list(PLUMB_BOB))) == hash(
        make_camera('plumb_bob', PLUMB_BOB)
    )


def test_field_of_view_is_measured_between_the_outer_edges_of_the_image():
    camera = Camera.from_hfov(width=64, height=48, hfov_deg=90)
    assert camera.focal_px == pytest.approx(32)
    rays = camera.rays()
    half_pixel = 0.5 / camera.fx
    assert rays[0, 0, 0] - half_pixel == pytest.approx(-1)
    assert rays[0, -1, 0] + half_pixel == pytest.approx(1)
    np.testing.assert_allclose(rays[0, 0], -rays[-1, -1], atol=1e-7)  # the centre is the centre


@pytest.mark.parametrize('hfov_deg', [0, 180, math.nan])
def test_an_impossible_field_of_view_is_refused(hfov_deg):
    with pytest.raises(ValueError, match=f'{hfov_deg} degrees'):
        Camera.from_hfov(width=64, height=48, hfov_deg=hfov_deg)


def test_resizing_keeps_the_half_pixel_term():
    half = make_camera(cx=100.25, cy=60.0).resized(width=80, height=60)
    assert (half.cx, half.cy) == (49.875, 29.75)
    assert (half.fx, half.fy) == (55, 56)


def test_a_pixel_of_half_size_looks_along_the_middle_of_the_four_it_covers():
    camera = make_camera()
    covered = camera.rays().reshape(60, 2, 80, 2, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(camera.resized(width=80, height=60).rays(), covered, atol=1e-6)


def test_resizing_back_gives_the_same_camera():
    camera = make_camera('plumb_bob', PLUMB_BOB)
    back = camera.resized(width=333, height=77).resized(width=160, height=120)
    for name in ('fx', 'fy', 'cx', 'cy'):
        assert getattr(back, name) == pytest.approx(getattr(camera, name))
    assert back.distortion == camera.distortion


@pytest.mark.parametrize('stride', [1, 2, 3, 7])
def test_a_strided_camera_has_the_rays_of_the_picked_pixels(stride):
    camera = make_camera('plumb_bob', PLUMB_BOB)
    picked = camera.rays()[::stride, ::stride]
    np.testing.assert_allclose(camera.strided(stride).rays(), picked, atol=1e-6)


@pytest.mark.parametrize(('model', 'distortion'), LENSES)
def test_rays_project_back_to_their_pixels_with_opencv(model, distortion):
    camera = make_camera(model, distortion)
    rays = camera.rays()
    assert np.isfinite(rays).all()
    assert rays.dtype == np.float32
    np.testing.assert_allclose(project_with_cv2(rays, camera), pixel_grid(camera), atol=1e-3)


@pytest.mark.parametrize(('model', 'distortion'), LENSES)
def test_rays_agree_with_opencv_undistortion(model, distortion):
    camera = make_camera(model, distortion)
    matrix = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
    pixels = pixel_grid(camera).reshape(-1, 1, 2).astype(np.float64)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-12)
    if model == 'equidistant':
        expected = cv2.fisheye.undistortPoints(
            pixels, matrix, np.array(distortion), criteria=criteria
        )
    else:
        expected = cv2.undistortPointsIter(
            pixels, matrix, np.array(distortion), np.eye(3), np.eye(3), criteria
        )
    np.testing.assert_allclose(camera.rays(), expected.reshape(120, 160, 2), atol=1e-5)


def test_a_fisheye_without_coefficients_is_no_pinhole():
    camera = make_camera('equidistant', (0, 0, 0, 0), fx=100.0, cx=79.5, cy=59.5)
    ray = camera.rays()[60, 159]
    angle = math.atan(math.hypot(*ray))
    assert angle == pytest.approx(math.hypot(79.5 / 100, 0.5 / 112), abs=1e-6)


def test_pixels_beyond_90_degrees_of_a_fisheye_have_no_ray():
    camera = make_camera('equidistant', (0, 0, 0, 0), fx=40.0, fy=40.0, cx=79.5, cy=59.5)
    angle = np.hypot(*np.moveaxis(pixel_grid(camera) - [79.5, 59.5], -1, 0)) / 40
    known = np.isfinite(camera.rays()).all(axis=-1)
    np.testing.assert_array_equal(known[angle < 0.99 * math.pi / 2], True)
    np.testing.assert_array_equal(known[angle > math.pi / 2], False)


@pytest.mark.parametrize(
    ('model', 'distortion', 'fold'),
    [
        ('plumb_bob', (-0.5, 0, 0, 0), math.sqrt(1 / 1.5)),  # r (1 - 0.5 r^2)
        ('rational_polynomial', (0, 0, 0, 0, 0, 1, 0, 0), 1.0),  # r / (1 + r^2)
        ('equidistant', (-0.5, 0, 0, 0), math.tan(math.sqrt(1 / 1.5))),
    ],
)
def test_pixels_outside_the_model_have_no_ray_and_the_others_are_on_its_inner_branch(
    model, distortion, fold
):
    camera = make_camera(model, distortion, fx=80.0, fy=80.0, cx=79.5, cy=59.5)
    rays = camera.rays()
    radius = np.linalg.norm(rays, axis=-1)
    known = np.isfinite(radius)
    assert 0.2 < known.mean() < 0.9
    assert radius[known].max() <= fold
    assert radius[known].max() > 0.9 * fold
    reached = np.linalg.norm(pixel_grid(camera) - [79.5, 59.5], axis=-1)
    assert reached[known].max() < reached[~known].min() + 1e-6  # a disk, without holes
    pixels = project_with_cv2(np.nan_to_num(rays), camera)
    np.testing.assert_allclose(pixels[known], pixel_grid(camera)[known], atol=2e-3)


def test_rays_are_computed_once_and_cannot_be_changed():
    camera = make_camera('plumb_bob', PLUMB_BOB)
    assert camera.rays() is make_camera('plumb_bob', PLUMB_BOB).rays()
    with pytest.raises(ValueError, match='read-only'):
        camera.rays()[0, 0] = 1


@pytest.mark.parametrize(('model', 'distortion'), [('', ()), *LENSES])
@pytest.mark.parametrize('count', [100, 1000, 7000])  # 160 pixels are a row
def test_rays_are_the_same_however_many_are_computed_at_once(
    monkeypatch, model, distortion, count
):
    camera = make_camera(model, distortion)
    plain = (pixel_grid(camera) - [camera.cx, camera.cy]) / [camera.fx, camera.fy]
    plain = undistort(plain.reshape(-1, 2), model, distortion).reshape(120, 160, 2)
    monkeypatch.setattr(geometry, 'PIXELS_AT_ONCE', count)
    np.testing.assert_array_equal(geometry._make_rays(camera), plain.astype(np.float32))


def test_rays_take_little_more_memory_than_they_have():
    camera = make_camera('plumb_bob', PLUMB_BOB).resized(width=1200, height=900)
    tracemalloc.start()
    try:
        size = geometry._make_rays(camera).nbytes
        assert tracemalloc.get_traced_memory()[1] < size + 2e7  # of a block of rows
    finally:
        tracemalloc.stop()


def test_rays_of_cameras_that_are_gone_do_not_pile_up():
    cameras = [make_camera(cx=float(column)) for column in range(20)]
    alive = [weakref.ref(camera.rays()) for camera in cameras]
    kept = [rays() is not None for rays in alive]
    assert kept == [False] * 18 + [True] * 2
    assert cameras[-1].rays() is alive[-1]()


def test_points_are_in_the_optical_frame():
    camera = make_camera(cx=79.5, cy=59.5)
    points = back_project(np.full((120, 160), 3, np.float32), camera)
    assert points.dtype == np.float32
    x, y, z = points[100, 150]  # right of the centre and below it
    assert (x, y, z) == pytest.approx(((150 - 79.5) / 110 * 3, (100 - 59.5) / 112 * 3, 3))


@pytest.mark.parametrize(('model', 'distortion'), [('', ()), *LENSES])
def test_a_wall_at_two_metres_is_a_plane_at_two_metres(model, distortion):
    camera = make_camera(model, distortion)
    points = back_project(render_wall(camera, TILTED_WALL, 2.0), camera)
    np.testing.assert_allclose(points @ TILTED_WALL, 2.0, atol=1e-5)


@pytest.mark.parametrize(
    ('width', 'height'), [(640, 480), (320, 120), (97, 203), (80, 60), (40, 31)]
)
def test_a_wall_stays_a_plane_at_two_metres_when_depth_and_camera_are_resized(width, height):
    camera = make_camera()
    resized = camera.resized(width=width, height=height)
    depth_m = resize_depth(render_wall(camera, TILTED_WALL, 2.0), width=width, height=height)
    margin_x, margin_y = math.ceil(width / 160), math.ceil(height / 120)  # beyond it: clamped
    inside = np.s_[margin_y:-margin_y, margin_x:-margin_x]
    np.testing.assert_allclose(back_project(depth_m, resized)[inside] @ TILTED_WALL, 2, atol=2e-4)
    np.testing.assert_allclose(
        depth_m[inside], render_wall(resized, TILTED_WALL, 2.0)[inside], atol=3e-4
    )


def test_resized_depth_lies_between_its_neighbours():
    rng = np.random.default_rng(0)
    depth_m = rng.choice([0.5, 1.0, 8.0], (15, 20)).astype(np.float32)
    resized = resize_depth(depth_m, width=83, height=61)
    padded = np.pad(depth_m, 1, mode='edge')
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    rows = ((np.arange(61) + 0.5) * 15 / 61).astype(int)
    columns = ((np.arange(83) + 0.5) * 20 / 83).astype(int)
    around = around[np.ix_(rows, columns)]
    assert (resized >= around.min(axis=(2, 3)) - 1e-5).all()
    assert (resized <= around.max(axis=(2, 3)) + 1e-5).all()
    assert len(np.unique(resized)) > 100  # it does interpolate


def test_an_edge_between_near_and_far_gets_no_depth_beyond_them():
    depth_m = np.full((8, 8), 1, np.float32)
    depth_m[:, 4:] = 5
    resized = resize_depth(depth_m, width=32, height=32)
    assert resized.min() == pytest.approx(1)
    assert resized.max() == pytest.approx(5)
    np.testing.assert_allclose(resized[:, :14], 1, rtol=1e-6)
    np.testing.assert_allclose(resized[:, 18:], 5, rtol=1e-6)


@pytest.mark.parametrize('unknown', [np.nan, np.inf, -np.inf, 0.0, -1.0])
def test_unknown_depth_stays_unknown_and_does_not_spread(unknown):
    depth_m = np.full((6, 8), 2, np.float32)
    depth_m[3, 5] = unknown
    resized = resize_depth(depth_m, width=16, height=12)
    expected = np.full((12, 16), 2, np.float32)
    expected[6:8, 10:12] = np.nan
    np.testing.assert_allclose(resized, expected, rtol=1e-6)


def test_depth_that_is_unknown_everywhere_stays_so():
    assert np.isnan(resize_depth(np.full((4, 4), np.nan, np.float32), width=9, height=7)).all()


def test_resizing_to_the_same_size_changes_nothing():
    depth_m = np.random.default_rng(1).uniform(0.5, 9, (12, 17)).astype(np.float32)
    depth_m[2, 3] = np.nan
    np.testing.assert_allclose(resize_depth(depth_m, width=17, height=12), depth_m, rtol=1e-6)


@pytest.mark.parametrize('unknown', [np.nan, np.inf, 0.0, -1.0])
def test_a_pixel_of_unknown_depth_has_no_point(unknown):
    depth_m = np.full((120, 160), 2, np.float32)
    depth_m[10, 20] = unknown
    points = back_project(depth_m, make_camera())
    assert np.isnan(points[10, 20]).all()
    assert np.isnan(points).sum() == 3


def test_a_pixel_without_a_ray_has_no_point():
    camera = make_camera('equidistant', (0, 0, 0, 0), fx=40.0, fy=40.0, cx=79.5, cy=59.5)
    points = back_project(np.full((120, 160), 2, np.float32), camera)
    assert np.isnan(points[0, 0]).all()
    assert np.isfinite(points[60, 80]).all()


def test_depth_of_another_size_than_the_camera_is_refused():
    with pytest.raises(ValueError, match=r'\(60, 80\).*120 rows and 160 columns'):
        back_project(np.ones((60, 80), np.float32), make_camera())


@pytest.mark.parametrize(('model', 'distortion'), [('', ()), *LENSES])
def test_points_of_a_depth_image_are_seen_in_their_pixels(model, distortion):
    camera = make_camera(model, distortion)
    depth_m = np.random.default_rng(1).uniform(0.3, 9, (120, 160)).astype(np.float32)
    points = back_project(depth_m, camera).reshape(-1, 3)
    known = np.isfinite(points[:, 2])
    assert known.mean() > 0.9
    pixels = project(points[known].astype(np.float64), camera)
    np.testing.assert_allclose(pixels, pixel_grid(camera).reshape(-1, 2)[known], atol=1e-3)


@pytest.mark.parametrize(('model', 'distortion'), [('', ()), *LENSES])
def test_points_are_projected_as_opencv_does(model, distortion):
    camera = make_camera(model, distortion)
    rays = make_camera().rays()
    pixels = project(np.dstack([rays, np.ones((120, 160))]).reshape(-1, 3), camera)
    expected = project_with_cv2(rays, camera).reshape(-1, 2)
    np.testing.assert_allclose(pixels, expected, atol=1e-6)


def test_points_that_are_not_in_front_of_the_camera_have_no_pixel():
    points = np.array([[0.1, 0.1, 0.0], [0.1, 0.1, -2.0], [0.1, 0.1, np.nan], [0, 0, 2.0]])
    pixels = project(points, make_camera())
    assert np.isnan(pixels[:3]).all()
    np.testing.assert_allclose(pixels[3], (83.3, 57.9))


@pytest.mark.parametrize(
    ('model', 'distortion'), [('plumb_bob', (-0.4, 0, 0, 0)), ('equidistant', (-0.4, 0, 0, 0))]
)
def test_what_a_lens_model_folds_back_into_the_image_has_no_pixel(model, distortion):
    camera = make_camera(model, distortion)
    angle = np.radians([30.0, 55.0, 65.0, 80.0])
    points = np.stack([np.sin(angle), 0 * angle, np.cos(angle)], axis=1)
    pixels = project(points, camera)
    assert np.isfinite(pixels[0]).all()
    assert np.isnan(pixels[1:]).all()
