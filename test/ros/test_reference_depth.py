import math

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import LaserScan, PointField
from std_msgs.msg import Header

from llm_mde_core.geometry import Camera, back_project
from llm_mde_ros.conversions import depth_to_image, empty_cloud, packed_points
from llm_mde_ros.extrinsics import move_points, sensor_to_optical
from llm_mde_ros.reference_depth import MAX_POINTS, reference_to_points, scan_to_points, seen_by

CAMERA = Camera(width=64, height=48, fx=60.0, fy=60.0, cx=31.5, cy=23.5)
BENT = Camera(
    width=64,
    height=48,
    fx=60.0,
    fy=60.0,
    cx=31.5,
    cy=23.5,
    distortion_model='plumb_bob',
    distortion=(-0.28, 0.09, 0.0012, -0.0008),
)
FISHEYE = Camera(
    width=64,
    height=48,
    fx=30.0,
    fy=30.0,
    cx=31.5,
    cy=23.5,
    distortion_model='equidistant',
    distortion=(-0.021, 0.007, -0.004, 0.0006),
)


def scan_of_wall(distance_m, **fields):
    """Return a scan of 721 rays, half a degree apart, of a wall that is ahead."""
    angles = np.radians(np.linspace(-180, 180, 721))
    ranges = np.where(np.cos(angles) > 0.01, distance_m / np.maximum(np.cos(angles), 0.01), np.inf)
    fields = {'range_min': 0.05, 'range_max': 30.0} | fields
    scan = LaserScan(
        header=Header(frame_id='laser'),
        angle_min=-math.pi,
        angle_max=math.pi,
        angle_increment=math.radians(0.5),
        ranges=ranges.astype(np.float32).tolist(),
        **fields,
    )
    return deserialize_message(serialize_message(scan), LaserScan)


def cloud_of(points):
    cloud = empty_cloud(1, len(points), Header(frame_id='lidar'), color=False)
    packed_points(cloud)[0] = points
    return cloud


def test_points_of_a_scan_lie_on_the_wall():
    points = scan_to_points(scan_of_wall(2.0))
    assert len(points) > 300
    np.testing.assert_allclose(points[:, 0], 2.0, rtol=1e-5)
    np.testing.assert_array_equal(points[:, 2], 0)
    assert points[0, 1] < -5  # the first ray of those is to the right
    assert points[-1, 1] > 5


def test_rays_without_an_echo_hit_nothing():
    scan = LaserScan(angle_increment=0.1, range_min=0.2, range_max=10.0)
    scan.ranges = [math.inf, -math.inf, math.nan, 0.0, 0.1, 10.5, 0.2, 10.0, -1.0]
    points = scan_to_points(scan)
    np.testing.assert_allclose(np.hypot(*points.T[:2]), (0.2, 10.0), rtol=1e-6)
    np.testing.assert_allclose(np.arctan2(points[:, 1], points[:, 0]), (0.6, 0.7), rtol=1e-6)


def test_a_scan_without_rays_has_no_points():
    assert scan_to_points(LaserScan(range_max=10.0)).shape == (0, 3)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'angle_min': math.nan}, 'angle_min nan'),
        ({'angle_increment': math.inf}, 'angle_increment inf'),
        ({'range_max': math.nan}, 'range_max nan'),
        ({'range_min': 5.0, 'range_max': 1.0}, 'range_min 5 and range_max 1'),
    ],
)
def test_a_scan_that_cannot_be_is_refused_with_its_value(fields, message):
    with pytest.raises(ValueError, match=message):
        scan_to_points(LaserScan(**({'range_max': 10.0} | fields), ranges=[1.0]))


def test_the_wall_two_metres_ahead_is_seen_by_a_scan_30_cm_left_of_the_camera():
    matrix = sensor_to_optical((0, 0.3, 0.15, 0, 0, 0), sensor_is_optical=False)
    points = move_points(reference_to_points(scan_of_wall(2.0), None), matrix)
    seen = seen_by(CAMERA, points)
    np.testing.assert_allclose(seen.depth_m, 2.0, rtol=1e-5)
    np.testing.assert_array_equal(seen.rows, 23.5 - 60 * 0.15 / 2)  # 15 cm above
    assert seen.columns.min() <= 1
    assert seen.columns.max() >= 62
    assert len(seen.rows) == len(set(seen.columns.tolist()))


def test_a_scan_that_stands_ahead_and_looks_left_sees_the_post_where_the_camera_does():
    # a post 1 m left and 3 m ahead of the camera; the laser is 3 m ahead and turned left by 90
    scan = LaserScan(range_max=10.0, ranges=[1.0])
    matrix = sensor_to_optical((3.0, 0, 0, 0, 0, math.pi / 2), sensor_is_optical=False)
    seen = seen_by(CAMERA, move_points(reference_to_points(scan, None), matrix))
    assert seen.columns.tolist() == [round(31.5 - 60 / 3)]
    np.testing.assert_allclose(seen.depth_m, 3.0, rtol=1e-6)


@pytest.mark.parametrize('camera', [CAMERA, BENT, FISHEYE])
def test_points_of_a_cloud_come_back_to_the_pixels_that_they_were_made_of(camera):
    depth_m = np.random.default_rng(3).uniform(2, 2.3, (48, 64)).astype(np.float32)
    cloud = cloud_of(back_project(depth_m, camera).reshape(-1, 3))
    seen = seen_by(camera, reference_to_points(cloud, None))
    assert len(seen.rows) > 0.9 * depth_m.size
    np.testing.assert_allclose(seen.depth_m, depth_m[seen.rows, seen.columns], rtol=1e-6)


def test_points_of_a_lidar_without_an_echo_are_left_out():
    points = np.array([[0, 0, 0], [np.nan] * 3, [1, np.inf, 1], [0, 0, 2]], np.float32)
    np.testing.assert_array_equal(reference_to_points(cloud_of(points), None), [[0, 0, 2]])


def test_a_cloud_without_coordinates_is_refused():
    cloud = cloud_of(np.ones((4, 3), np.float32))
    cloud.fields = [PointField(name='intensity', datatype=PointField.FLOAT32, count=1)]
    with pytest.raises(ValueError, match='no field x, y, z'):
        reference_to_points(cloud, None)


def test_points_behind_the_camera_or_beyond_its_image_are_left_out():
    # 1.6 m right of what is 2 m ahead is column 31.5 + 48
    points = [[0, 0, 2], [0, 0, -2], [1.6, 0, 2], [0, -1.6, 2], [0, 0, 0], [np.inf, 0, 1]]
    seen = seen_by(CAMERA, np.array(points, float))
    np.testing.assert_array_equal(seen.depth_m, [2.0])


def test_points_beyond_the_lens_model_do_not_fold_back_into_the_image():
    angle = math.radians(80)
    folded = np.array([[math.sin(angle), 0, math.cos(angle)]])
    assert len(seen_by(BENT, folded).rows) == 0


def test_the_nearest_of_the_points_in_a_pixel_stays():
    points = np.array([[0, 0, 4.0], [0, 0, 1.5], [0, 0, 3.0], [0.5, 0, 3.0]])
    seen = seen_by(CAMERA, points)
    assert seen.depth_m.tolist() == [1.5, 3.0]
    assert seen.columns.tolist() == [32, 42]  # 31.5 is rounded to even


def test_a_pixel_is_what_is_less_than_half_a_pixel_from_its_centre():
    x = (np.array([-0.6, -0.4, 63.4, 63.6]) - 31.5) / 60
    seen = seen_by(CAMERA, np.stack([x, 0 * x, 0 * x + 1], axis=1))
    assert seen.columns.tolist() == [0, 63]


@pytest.mark.parametrize('encoding', ['32FC1', '16UC1'])
def test_a_depth_image_of_the_same_camera_comes_back(encoding):
    depth_m = np.full((48, 64), 3.0, np.float32)
    depth_m[:10] = np.nan
    depth_m[20:30, 20:30] = 1.25
    image = depth_to_image(depth_m, Header(), encoding)
    seen = seen_by(CAMERA, reference_to_points(image, CAMERA))
    assert len(seen.rows) == 38 * 64
    np.testing.assert_allclose(seen.depth_m, depth_m[seen.rows, seen.columns], rtol=1e-6)


def test_a_smaller_depth_image_of_the_same_view_keeps_the_half_pixel():
    camera = CAMERA.resized(width=63, height=48)
    small = depth_to_image(np.full((16, 21), 2.0, np.float32), Header())
    seen = seen_by(camera, reference_to_points(small, camera))
    # pixel 0 covers 0 to 2, its centre is 1
    np.testing.assert_array_equal(np.unique(seen.columns), range(1, 63, 3))
    np.testing.assert_array_equal(np.unique(seen.rows), range(1, 48, 3))


def test_a_large_depth_image_is_thinned_out():
    large = CAMERA.resized(width=640, height=480)
    depth_m = np.random.default_rng(0).uniform(2, 2.3, (480, 640)).astype(np.float32)
    points = reference_to_points(depth_to_image(depth_m, Header()), large)
    assert MAX_POINTS / 2 < len(points) <= MAX_POINTS
    seen = seen_by(large, points)
    np.testing.assert_allclose(seen.depth_m, depth_m[seen.rows, seen.columns], rtol=1e-6)


def test_a_large_cloud_is_thinned_out_all_over_the_image():
    large = CAMERA.resized(width=640, height=480)
    points = back_project(np.full((480, 640), 2.0, np.float32), large).reshape(-1, 3)
    seen = seen_by(large, points.astype(np.float64))
    assert MAX_POINTS / 2 < len(seen.rows) <= MAX_POINTS
    assert (seen.rows.min(), seen.rows.max()) == (0, 479)


def test_a_depth_camera_beside_the_camera_sees_the_thing_elsewhere():
    depth_m = np.full((48, 64), 4.0, np.float32)
    depth_m[20:30, 30:40] = 1.0
    matrix = sensor_to_optical((0, -0.1, 0, 0, 0, 0), sensor_is_optical=True)  # 10 cm right
    points = reference_to_points(depth_to_image(depth_m, Header()), CAMERA)
    seen = seen_by(CAMERA, move_points(points, matrix))
    near = seen.columns[seen.depth_m == 1.0]
    assert (near.min(), near.max()) == (36, 45)  # 60 px * 0.1 m / 1 m further right


def test_a_huge_cloud_is_thinned_out_before_it_is_projected():
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-1, 1, (200_000, 2)), np.full(200_000, 2.0)])
    seen = seen_by(CAMERA.resized(width=640, height=480), points)
    assert MAX_POINTS / 2 < len(seen.rows) <= MAX_POINTS


@pytest.mark.parametrize('camera', [CAMERA, BENT, FISHEYE])
def test_the_outermost_pixels_are_in_view(camera):
    points = back_project(np.full((48, 64), 2.0, np.float32), camera).astype(np.float64)
    corners = points[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert len(seen_by(camera, corners).rows) == 4


def test_a_wall_does_not_show_through_between_the_points_of_a_near_thing():
    # rings of a lidar, 5 pixels apart, hit a near thing; from above, it sees the wall behind
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, 200), np.arange(-0.4, 0.4, 5 / 60))
    thing = np.stack([x, y, 0 * x + 1], axis=-1).reshape(-1, 3)
    x, y = np.meshgrid(np.linspace(-3, 3, 200), np.linspace(-1.2, 1.2, 40))
    wall = np.stack([x, y, 0 * x + 4], axis=-1).reshape(-1, 3)
    seen = seen_by(CAMERA, np.concatenate([thing, wall]))
    within = (abs(seen.columns - 31.5) < 29) & (abs(seen.rows - 21) < 16)
    assert within.sum() > 200
    np.testing.assert_array_equal(seen.depth_m[within], 1.0)
    assert (seen.depth_m[~within] == 4.0).sum() > 100  # above and below the thing


def test_a_floor_that_rises_into_the_distance_stays():
    _, rows = np.meshgrid(np.arange(64), np.arange(48))
    with np.errstate(divide='ignore'):
        floor_m = np.where(rows > 24, 60 * 0.3 / (rows - 23.5), np.nan).astype(np.float32)
    seen = seen_by(CAMERA, reference_to_points(depth_to_image(floor_m, Header()), CAMERA))
    assert len(seen.rows) == np.isfinite(floor_m).sum()


def test_a_thing_before_a_wall_and_the_wall_beside_it_stay():
    depth_m = np.full((48, 64), 4.0, np.float32)
    depth_m[20:30, 20:30] = 1.0
    seen = seen_by(CAMERA, reference_to_points(depth_to_image(depth_m, Header()), CAMERA))
    assert len(seen.rows) == depth_m.size


def test_a_depth_image_needs_a_camera_of_its_shape():
    image = depth_to_image(np.full((48, 64), 2.0, np.float32), Header())
    with pytest.raises(ValueError, match='no camera_info of the depth image'):
        reference_to_points(image, None)
    with pytest.raises(ValueError, match='64x48 pixels, its camera 64x40'):
        reference_to_points(image, Camera(64, 40, 60.0, 60.0, 31.5, 19.5))
