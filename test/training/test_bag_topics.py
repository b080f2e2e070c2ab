"""Topics are found by type; ambiguity and depth that does not fit are refused with a reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from training.bag_files import CAMERA, COLOR, DEPTH, FRAME, BagFile, color_image, depth_image

from llm_mde_train.bag_reader import BagReader
from llm_mde_train.bag_topics import find_topics
from llm_mde_train.rosbag_frames import read_bag

DEPTH_CAMERA = replace(CAMERA, fx=10.0, fy=9.0)
BENT = replace(CAMERA, distortion_model='plumb_bob', distortion=(0.1, 0.0, 0.0, 0.0, 0.0))


def found(path: Path, **named: str):
    return find_topics(BagReader(path), **named)


def test_raw_colour_and_registered_depth_are_preferred(tmp_path):
    with BagFile(tmp_path / 'bag') as bag:
        bag.frames(1)
        png = cv2.imencode('.png', color_image(0))[1].tobytes()
        bag.compressed(f'{COLOR}/compressed', png, 'rgb8; png compressed bgr8')
        bag.image('/camera/infra/image_raw', color_image(0)[..., 0], 'mono8', frame='infra')
        bag.image('/camera/unaligned/image_raw', depth_image(0), '16UC1', frame='infra')
    topics = found(tmp_path / 'bag')
    assert (topics.color, topics.depth, topics.registration) == (COLOR, DEPTH, None)
    assert topics.camera == CAMERA
    assert found(tmp_path / 'bag', color=f'{COLOR}/compressed').color == f'{COLOR}/compressed'
    assert (
        found(
            tmp_path / 'bag',
            color='/camera/infra/image_raw',
            info='/camera/color/camera_info',
            depth='/camera/unaligned/image_raw',
        ).color
        == '/camera/infra/image_raw'
    )


def test_several_topics_are_listed(tmp_path):
    with BagFile(tmp_path / 'bag') as bag:
        bag.frames(1)
        bag.image('/left/image_raw', color_image(0), 'rgb8')
        bag.image('/other/depth', depth_image(0), '16UC1')
    with pytest.raises(
        ValueError, match=rf'colour images, name one as color_topic: {COLOR}, /left'
    ):
        found(tmp_path / 'bag')
    with pytest.raises(ValueError, match=r'depth images, name one as depth_topic.*, /other/depth'):
        found(tmp_path / 'bag', color=COLOR)
    assert found(tmp_path / 'bag', color=COLOR, depth='/other/depth').depth == '/other/depth'
    with pytest.raises(ValueError, match=rf'/camera/color/image_rw, did you mean {COLOR}\?'):
        found(tmp_path / 'bag', color='/camera/color/image_rw')
    with pytest.raises(
        ValueError, match='/camera/color/camera_info is sensor_msgs/msg/CameraInfo'
    ):
        found(tmp_path / 'bag', color='/camera/color/camera_info')
    with pytest.raises(
        ValueError, match=r'no camera_info lies beside /left/.*name one of /camera'
    ):
        found(tmp_path / 'bag', color='/left/image_raw')


def test_a_bag_without_depth_lists_what_it_has(tmp_path):
    with BagFile(tmp_path / 'bag') as bag:
        bag.image(COLOR, color_image(0), 'rgb8')
        bag.info('/camera/color/camera_info', CAMERA)
    with pytest.raises(ValueError, match=rf'has no depth images:\n(.*\n)?  {COLOR}  sensor_msgs'):
        found(tmp_path / 'bag')


def test_camera_info_of_another_size_is_refused(tmp_path):
    with BagFile(tmp_path / 'bag') as bag:
        bag.image(COLOR, color_image(0), 'rgb8')
        bag.info('/camera/color/camera_info', replace(CAMERA, width=32))
    with pytest.raises(ValueError, match=r'is 16 x 12, its camera_info is for 32 x 12'):
        found(tmp_path / 'bag')


def test_rectified_images_have_no_distortion(tmp_path):
    with BagFile(tmp_path / 'bag') as bag:
        for topic in ('/camera/image_rect_color', '/camera/direct'):
            bag.image(topic, color_image(0), 'rgb8')
        bag.info('/camera/camera_info', BENT)
        bag.image('/depth', depth_image(0), '16UC1')
    assert found(tmp_path / 'bag', color='/camera/image_rect_color').camera == CAMERA
    assert found(tmp_path / 'bag', color='/camera/direct').camera == BENT


@pytest.mark.parametrize(
    ('depth_frame', 'depth_camera', 'reason'),
    [
        ('infra', CAMERA, r"its frame is 'infra', that of the colour 'camera_optical_frame'"),
        ('infra', DEPTH_CAMERA, r'/tf_static does not join the two frames'),
    ],
)
def test_depth_that_is_not_registered_is_refused(tmp_path, depth_frame, depth_camera, reason):
    with BagFile(tmp_path / 'bag') as bag:
        bag.frames(1, depth_frame=depth_frame, depth_camera=depth_camera)
    with pytest.raises(ValueError, match=rf'{DEPTH} of .* is not registered .*{reason}'):
        read_bag(tmp_path / 'bag')


def test_depth_of_another_size_without_its_camera_info_is_refused(tmp_path):
    with BagFile(tmp_path / 'bag') as bag:
        bag.image(COLOR, color_image(0), 'rgb8')
        bag.info('/camera/color/camera_info', CAMERA)
        bag.image(DEPTH, depth_image(0)[:6], '16UC1')
    with pytest.raises(ValueError, match=r'it is 16 x 6, the colour 16 x 12; no camera_info'):
        read_bag(tmp_path / 'bag')


@pytest.mark.parametrize('kind', ['mcap', 'ros1'])
def test_depth_is_registered_with_a_static_transform(tmp_path, kind):
    path = tmp_path / ('room.bag' if kind == 'ros1' else 'room')
    with BagFile(path, kind) as bag:
        bag.static_transform('base', FRAME, move=(0.0, 0.0, 0.2))
        bag.static_transform('base', '/infra', move=(0.0, 0.0, 0.0))
        bag.frames(2, depth_frame='infra', depth_camera=DEPTH_CAMERA)
    result = read_bag(path)
    sample = result.frames[1].load()
    assert 'registered here' in result.summary()
    assert sample.depth_m.shape == (12, 16)
    np.testing.assert_allclose(sample.depth_m[:, 1:], 1.001 - 0.2, rtol=1e-5)


def test_other_intrinsics_in_one_frame_are_registered_and_nominal_ones_taken_as_they_are(tmp_path):
    for name, camera in (('far', DEPTH_CAMERA), ('near', replace(CAMERA, fx=15.3))):
        with BagFile(tmp_path / name) as bag:
            bag.frames(1, depth_camera=camera)
    assert found(tmp_path / 'far').registration.depth_camera == DEPTH_CAMERA
    assert found(tmp_path / 'near').registration is None
