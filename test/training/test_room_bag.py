"""A rendered room as a bag: what is written is what was rendered."""

from pathlib import Path

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from llm_mde_core.geometry import Camera
from llm_mde_train.room_bag import (
    COLOR,
    DEPTH,
    FRAME_ID,
    KINECT_HFOV_DEG,
    render_frames,
    write_room_bag,
)

SIZE = {'width': 64, 'height': 48}


def read(path: Path) -> dict[str, list]:
    """Return all messages by topic."""
    messages: dict[str, list] = {}
    with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
        for connection, stamp_ns, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            messages.setdefault(connection.topic, []).append((stamp_ns, message))
    return messages


@pytest.fixture(scope='module')
def bag(tmp_path_factory) -> dict[str, list]:
    path = tmp_path_factory.mktemp('bags') / 'room'
    assert write_room_bag(path, seed=2, seconds=0.5, depth_encoding='32FC1', **SIZE) == 5
    return read(path)


def test_topics_and_encodings(bag):
    info = [topic.removesuffix('image_raw') + 'camera_info' for topic in (COLOR, DEPTH)]
    assert {topic: len(messages) for topic, messages in bag.items()} == dict.fromkeys(
        [COLOR, DEPTH, *info], 5
    )
    assert {message.encoding for _, message in bag[COLOR]} == {'rgb8'}
    assert {message.encoding for _, message in bag[DEPTH]} == {'32FC1'}
    assert {m.header.frame_id for each in bag.values() for _, m in each} == {FRAME_ID}


def test_stamps_are_equal_rise_and_are_the_log_times(bag):
    stamps = [
        [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for _, m in messages]
        for messages in bag.values()
    ]
    assert all(each == stamps[0] for each in stamps)
    assert stamps[0] == [time for time, _ in bag[COLOR]]
    steps = np.diff(stamps[0]) / 1e9
    assert (np.abs(steps - 0.1) < 0.01).all()
    assert len(set(steps)) > 1


def test_pixels_are_what_was_rendered(bag):
    camera = Camera.from_hfov(hfov_deg=KINECT_HFOV_DEG, **SIZE)
    for number, (rgb, depth_m) in enumerate(render_frames(seed=2, count=5, camera=camera)):
        image, depth = bag[COLOR][number][1], bag[DEPTH][number][1]
        assert (image.height, image.width, image.step) == (48, 64, 192)
        np.testing.assert_array_equal(image.data.reshape(48, 64, 3), rgb)
        np.testing.assert_array_equal(depth.data.view('<f4').reshape(48, 64), depth_m)
        assert np.isfinite(depth_m).mean() > 0.99


def test_camera_info_is_the_camera(bag):
    camera = Camera.from_hfov(hfov_deg=KINECT_HFOV_DEG, **SIZE)
    _, info = bag[COLOR.replace('image_raw', 'camera_info')][0]
    assert (info.width, info.height) == (64, 48)
    np.testing.assert_allclose(info.k[[0, 4, 2, 5]], [camera.fx, camera.fy, camera.cx, camera.cy])
    np.testing.assert_allclose(info.p.reshape(3, 4)[:, :3], info.k.reshape(3, 3))
    assert not info.d.any()


def test_camera_moves_smoothly(bag):
    depths = np.stack([m.data.view('<f4') for _, m in bag[DEPTH]])
    change = np.median(np.abs(np.diff(np.log(depths), axis=0)), axis=1)
    assert (change > 0).all()
    assert (change < 0.1).all()


def test_millimetres(bag, tmp_path):
    write_room_bag(tmp_path / 'mm', seed=2, seconds=0.1, **SIZE)
    (_, depth), *_ = read(tmp_path / 'mm')[DEPTH]
    assert depth.encoding == '16UC1'
    metres = bag[DEPTH][0][1].data.view('<f4')
    rendered = depth.data.view('<u2') / 1000
    assert rendered.shape == metres.shape


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [({'seconds': 0.0}, 'no frame'), ({'depth_encoding': 'mono8'}, "'mono8'")],
)
def test_bad_options_are_refused_and_leave_nothing(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        write_room_bag(tmp_path / 'bag', **SIZE, **options)
    assert not list(tmp_path.iterdir())


def test_existing_bag_is_kept(tmp_path):
    (tmp_path / 'bag').mkdir()
    with pytest.raises(ValueError, match='exists'):
        write_room_bag(tmp_path / 'bag', seconds=0.1, **SIZE)
