from dataclasses import replace
import math

import cv2
import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header
import torch

from llm_mde_core.estimator import DepthPrediction
from llm_mde_core.geometry import Camera
from llm_mde_ros.conversions import (
    camera_from_info,
    camera_to_info,
    cloud_to_points,
    image_to_depth,
    image_to_rgb,
)
from llm_mde_ros.outputs import (
    OUTPUT_TOPICS,
    PREVIEW_COLORMAPS,
    OutputSettings,
    depth_to_preview,
    make_outputs,
    within_limits,
)

HEIGHT, WIDTH = 12, 16
CAMERA = Camera(WIDTH, HEIGHT, fx=10.0, fy=11.0, cx=7.25, cy=5.75)
RNG = np.random.default_rng(3)
RGB = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
OPEN = OutputSettings(
    depth_min_m=0.0, depth_max_m=math.inf, points_stride=1, points_min_range_m=0.0
)


@pytest.fixture
def header():
    header = Header(frame_id='camera_optical')
    header.stamp.sec, header.stamp.nanosec = 17, 250_000_001
    return header


def make_prediction():
    depth_m = RNG.uniform(0.5, 9.5, (HEIGHT, WIDTH)).astype(np.float32)
    depth_m[3, 4] = np.nan
    confidence = RNG.uniform(0, 1, (HEIGHT, WIDTH)).astype(np.float32)
    return DepthPrediction(
        depth=torch.from_numpy(depth_m),
        read_certainty=lambda: torch.from_numpy(confidence),
        stage_s={},
    )


def outputs(prediction, header, *wanted, settings=OPEN, camera=CAMERA, **more):
    return make_outputs(
        within_limits(prediction, settings),
        rgb=RGB,
        camera=camera,
        header=header,
        wanted=wanted or OUTPUT_TOPICS,
        settings=settings,
        **more,
    )


def test_every_output_has_the_header_of_the_image_and_survives_the_wire(header):
    messages = outputs(make_prediction(), header)
    assert set(messages) == set(OUTPUT_TOPICS)
    for message in messages.values():
        assert message.header == header
        assert deserialize_message(serialize_message(message), type(message)) == message


@pytest.mark.parametrize('topic', OUTPUT_TOPICS)
def test_only_what_is_wanted_is_made(header, topic):
    assert set(outputs(make_prediction(), header, topic)) == {topic}


@pytest.mark.parametrize(
    ('topics', 'unused'),
    [
        (['depth/image', 'depth/preview', 'points'], 'read_certainty'),
        (['confidence', 'depth/camera_info'], 'depth'),
    ],
)
def test_nothing_is_computed_for_what_is_not_wanted(header, topics, unused):
    without = replace(make_prediction(), **{unused: None})
    messages = make_outputs(
        without, rgb=RGB, camera=CAMERA, header=header, wanted=topics, settings=OPEN
    )
    assert set(messages) == set(topics)


def test_an_unknown_output_is_refused(header):
    with pytest.raises(ValueError, match=r"\['cloud'\], known: depth/image"):
        outputs(make_prediction(), header, 'points', 'cloud')


def test_depth_and_confidence_are_those_of_the_prediction(header):
    prediction = make_prediction()
    messages = outputs(prediction, header)
    np.testing.assert_array_equal(image_to_depth(messages['depth/image']), prediction.depth_m)
    confidence = np.frombuffer(messages['confidence'].data, np.float32)
    known = np.isfinite(prediction.depth_m)
    np.testing.assert_array_equal(confidence, np.where(known, prediction.confidence, 0).ravel())


@pytest.mark.parametrize('certainty', [0.42, math.nan])
def test_unknown_depth_has_no_confidence(header, certainty):
    settings = replace(OPEN, depth_min_m=2.0, depth_max_m=6.0)
    depth = torch.tensor([[math.nan, 1.0, 3.0, 9.0, math.inf, 2.0]])
    said = torch.full_like(depth, certainty)
    said[0, 2::3] = 0.42
    message = make_outputs(
        within_limits(DepthPrediction(depth, lambda: said, {}), settings),
        rgb=np.zeros((1, 6, 3), np.uint8),
        camera=Camera.from_hfov(width=6, height=1, hfov_deg=60.0),
        header=header,
        wanted=['confidence'],
        settings=settings,
    )['confidence']
    expected = np.float32([0, 0, 0.42, 0, 0, 0.42])
    np.testing.assert_array_equal(np.frombuffer(message.data, np.float32), expected)
    assert said[0, 5] == np.float32(0.42)  # and what the network said is untouched


def test_confidence_is_read_when_it_is_asked_for_and_not_before():
    reads = []

    def read():
        reads.append(1)
        return torch.ones(HEIGHT, WIDTH)

    prediction = within_limits(replace(make_prediction(), read_certainty=read), OPEN)
    assert prediction.depth_m.shape == (HEIGHT, WIDTH)
    assert not reads
    assert (prediction.confidence == 1).sum() == HEIGHT * WIDTH - 1
    assert reads == [1]


def test_depth_beyond_the_limits_is_unknown_in_all_outputs(header):
    prediction = make_prediction()
    settings = replace(OPEN, depth_min_m=2.0, depth_max_m=6.0)
    depth_m = prediction.depth_m
    inside = (depth_m >= 2) & (depth_m <= 6)
    assert 0.2 < inside.mean() < 0.8
    messages = outputs(prediction, header, settings=settings)
    published = image_to_depth(messages['depth/image'])
    np.testing.assert_array_equal(published, np.where(inside, depth_m, np.nan))
    points, _ = cloud_to_points(messages['points'])
    np.testing.assert_array_equal(np.isfinite(points).all(axis=-1), inside)
    preview = image_to_rgb(messages['depth/preview'])
    np.testing.assert_array_equal(preview.any(axis=-1), inside)
    np.testing.assert_array_equal(prediction.depth_m, depth_m)  # and the prediction is untouched


def test_millimetres_are_published_on_demand(header):
    prediction = make_prediction()
    message = outputs(
        prediction, header, 'depth/image', settings=replace(OPEN, depth_encoding='16UC1')
    )['depth/image']
    assert message.encoding == '16UC1'
    assert np.frombuffer(message.data, np.uint16).reshape(HEIGHT, WIDTH)[3, 4] == 0
    np.testing.assert_allclose(image_to_depth(message), prediction.depth_m, atol=5.1e-4)


def test_the_published_calibration_fits_the_published_depth(header):
    messages = outputs(make_prediction(), header)
    info, image = messages['depth/camera_info'], messages['depth/image']
    assert (info.width, info.height) == (image.width, image.height)
    assert camera_from_info(info) == CAMERA


def test_the_published_calibration_keeps_what_the_source_says(header):
    source = camera_to_info(CAMERA.resized(width=640, height=480), Header(), None)
    source.p[3] = -40.0
    info = outputs(make_prediction(), header, 'depth/camera_info', source_info=source)[
        'depth/camera_info'
    ]
    assert info.p[3] == pytest.approx(-1.0)
    assert info.k[2] == pytest.approx(CAMERA.cx)


def test_points_lie_on_the_rays_of_their_pixels_with_their_colours(header):
    prediction = make_prediction()
    cloud = outputs(prediction, header, 'points')['points']
    assert (cloud.height, cloud.width, cloud.point_step) == (HEIGHT, WIDTH, 16)
    assert not cloud.is_dense
    points, rgb = cloud_to_points(cloud)
    np.testing.assert_array_equal(rgb, RGB)
    np.testing.assert_array_equal(points[..., 2], prediction.depth_m)
    pixels_x = points[..., 0] / points[..., 2] * CAMERA.fx + CAMERA.cx
    pixels_y = points[..., 1] / points[..., 2] * CAMERA.fy + CAMERA.cy
    known = np.isfinite(prediction.depth_m)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    np.testing.assert_allclose(pixels_x[known], columns[known], atol=1e-4)
    np.testing.assert_allclose(pixels_y[known], rows[known], atol=1e-4)


def test_a_wall_at_two_metres_is_a_cloud_at_two_metres_through_a_distorting_lens(header):
    camera = replace(
        CAMERA, distortion_model='plumb_bob', distortion=(-0.1, 0.02, 0.001, -0.002, 0.0)
    )
    normal = np.array([0.28, 0.0, 0.96])
    rays = np.dstack([camera.rays(), np.ones((HEIGHT, WIDTH))])
    prediction = replace(make_prediction(), depth=torch.from_numpy(2 / (rays @ normal)).float())
    settings = replace(OPEN, points_stride=3)
    cloud = outputs(prediction, header, 'points', camera=camera, settings=settings)['points']
    points, _ = cloud_to_points(cloud)
    np.testing.assert_allclose(points @ normal, 2.0, atol=1e-5)


@pytest.mark.parametrize('stride', [2, 3, 5])
def test_a_strided_cloud_is_every_nth_point(header, stride):
    prediction = make_prediction()
    every, every_rgb = cloud_to_points(outputs(prediction, header, 'points')['points'])
    settings = replace(OPEN, points_stride=stride)
    cloud = outputs(prediction, header, 'points', settings=settings)['points']
    points, rgb = cloud_to_points(cloud)
    np.testing.assert_allclose(points, every[::stride, ::stride], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(rgb, every_rgb[::stride, ::stride])


def test_range_is_the_distance_from_the_camera(header):
    prediction = make_prediction()
    every, _ = cloud_to_points(outputs(prediction, header, 'points')['points'])
    settings = replace(OPEN, points_min_range_m=3.0, points_max_range_m=7.0)
    points, _ = cloud_to_points(outputs(prediction, header, 'points', settings=settings)['points'])
    distance = np.linalg.norm(every, axis=-1)
    inside = (distance >= 3) & (distance <= 7)
    assert (inside != ((every[..., 2] >= 3) & (every[..., 2] <= 7))).any()  # not depth along z
    np.testing.assert_array_equal(points[inside], every[inside])
    assert np.isnan(points[~inside]).all()


@pytest.mark.parametrize(
    ('switch', 'limit'),
    [
        ('points_range_enable', {'points_min_range_m': 3.0, 'points_max_range_m': 7.0}),
        ('points_confidence_enable', {'points_min_confidence': 0.6}),
    ],
)
def test_a_filter_of_the_cloud_is_switched_off(header, switch, limit):
    prediction = make_prediction()
    settings = replace(OPEN, **limit)
    filtered = outputs(prediction, header, 'points', settings=settings)['points']
    off = replace(settings, **{switch: False})
    every = outputs(prediction, header, 'points', settings=off)['points']
    assert every == outputs(prediction, header, 'points')['points'] != filtered


@pytest.mark.parametrize('organized', [True, False])
def test_points_of_low_confidence_are_left_out(header, organized):
    prediction = make_prediction()
    settings = replace(
        OPEN, points_min_confidence=0.6, points_stride=2, points_organized=organized
    )
    cloud = outputs(prediction, header, 'points', settings=settings)['points']
    keep = (prediction.confidence >= 0.6) & np.isfinite(prediction.depth_m)
    keep = keep[::2, ::2]
    points, rgb = cloud_to_points(cloud)
    if organized:
        np.testing.assert_array_equal(np.isfinite(points[..., 2]), keep)
    else:
        assert cloud.is_dense
        assert (cloud.height, cloud.width) == (1, keep.sum())
        np.testing.assert_array_equal(points[0, :, 2], prediction.depth_m[::2, ::2][keep])
        np.testing.assert_array_equal(rgb[0], RGB[::2, ::2][keep])


def test_points_without_colour_take_12_bytes(header):
    settings = replace(OPEN, points_color=False)
    cloud = outputs(make_prediction(), header, 'points', settings=settings)['points']
    assert cloud.point_step == 12
    assert cloud_to_points(cloud)[1] is None


def test_a_prediction_of_another_size_than_the_camera_is_refused(header):
    camera = CAMERA.resized(width=32, height=24)
    with pytest.raises(ValueError, match='24 rows and 32 columns'):
        outputs(make_prediction(), header, 'points', camera=camera)


@pytest.mark.parametrize('colormap', PREVIEW_COLORMAPS)
def test_preview_colours_depend_on_the_depth_alone(colormap):
    settings = OutputSettings(preview_min_m=1.0, preview_max_m=5.0, preview_colormap=colormap)
    near, far = np.float32([[1.5, 3.0]]), np.float32([[3.0, 4.5, np.nan]])
    bgr = depth_to_preview(near, settings)
    np.testing.assert_array_equal(bgr[0, 1], depth_to_preview(far, settings)[0, 0])
    assert (bgr[0, 0] != bgr[0, 1]).any()
    assert not depth_to_preview(far, settings)[0, 2].any()


def test_preview_is_clamped_to_its_range_with_near_at_the_warm_end():
    settings = OutputSettings(preview_min_m=1.0, preview_max_m=5.0)
    bgr = depth_to_preview(np.float32([[0.2, 1.0, 3.0, 5.0, 9.0]]), settings)[0]
    warm_to_cold = cv2.applyColorMap(np.uint8([[255, 255, 127, 0, 0]]), cv2.COLORMAP_TURBO)[0]
    np.testing.assert_array_equal(bgr, warm_to_cold)


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('depth_encoding', '64FC1', "'64FC1', expected one of: 32FC1, 16UC1"),
        ('depth_min_m', -0.5, 'depth_min_m is -0.5'),
        ('depth_max_m', 0.05, 'less than depth_max_m, which is 0.05'),
        ('preview_max_m', math.nan, 'preview_max_m, which is nan'),
        ('preview_colormap', 'rainbow', "'rainbow', expected one of: turbo"),
        ('points_stride', 0, 'points_stride is 0'),
        ('points_min_range_m', 99.0, 'points_min_range_m is 99.0'),
        ('points_min_confidence', 1.5, 'points_min_confidence is 1.5'),
    ],
)
def test_settings_that_cannot_be_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        OutputSettings(**{name: value})
