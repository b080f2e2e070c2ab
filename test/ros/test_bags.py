from pathlib import Path

import numpy as np
import pytest
from rclpy.serialization import serialize_message
import small_bags

from llm_mde_ros.bags import BagReader, find_camera_topics, header_stamp_ns, to_depth, to_rgb

SHARED_BAGS = Path(__file__).resolve().parents[3] / 'shared' / 'data' / 'bags'


def write(path: Path, recorded: list, kind: str) -> Path:
    if kind == 'ros1':
        return small_bags.write_ros1(path.with_suffix('.bag'), recorded)
    return small_bags.write_rosbag2(path, recorded, storage=kind)


@pytest.mark.parametrize('kind', ['mcap', 'sqlite3', 'ros1'])
def test_every_format_gives_the_same_messages(tmp_path, kind):
    path = write(tmp_path / 'bag', small_bags.camera(3, depth=True), kind)
    with BagReader(path) as bag:
        topics = find_camera_topics(bag)
        assert (topics.image, topics.camera_info) == (small_bags.IMAGE, small_bags.INFO)
        assert topics.depth == small_bags.DEPTH
        assert not topics.compressed
        assert bag.count(topics.image) == 3

        images = list(bag.messages([topics.image]))
        period, delay = small_bags.PERIOD_NS, small_bags.RECORDING_DELAY_NS
        assert [m.stamp_ns for m in images] == [small_bags.START_NS + n * period for n in range(3)]
        assert [m.time_ns - m.stamp_ns for m in images] == [delay] * 3
        for number, message in enumerate(images):
            np.testing.assert_array_equal(to_rgb(message.decode()), small_bags.picture(number))
            assert message.decode().header.frame_id == 'cam_optical'
        assert bag.first(topics.camera_info).decode().k[0] == small_bags.FX

        depth_m = to_depth(bag.first(topics.depth).decode())
        assert np.isnan(depth_m[:8, :8]).all()
        assert depth_m[20, 20] == np.float32(2.0)


@pytest.mark.parametrize('kind', ['mcap', 'ros1'])
def test_compressed_colour_is_found_and_decoded(tmp_path, kind):
    with BagReader(write(tmp_path / 'bag', small_bags.camera(2, compressed=True), kind)) as bag:
        topics = find_camera_topics(bag)
        assert topics.image == f'{small_bags.IMAGE}/compressed'
        assert topics.compressed
        assert topics.camera_info == small_bags.INFO
        rgb = to_rgb(bag.first(topics.image).decode())
    assert np.abs(rgb.astype(int) - small_bags.picture(0)).mean() < 6  # JPEG


def test_a_raw_topic_is_preferred_to_its_compressed_twin(tmp_path):
    recorded = [small_bags.info(0), small_bags.colour(0), small_bags.jpeg(0)]
    with BagReader(write(tmp_path / 'bag', recorded, 'mcap')) as bag:
        assert find_camera_topics(bag).image == small_bags.IMAGE
        twin = f'{small_bags.IMAGE}/compressed'
        assert find_camera_topics(bag, image=twin).image == twin


@pytest.mark.parametrize('compressed', [False, True])
def test_a_broken_first_image_does_not_hide_the_topics(tmp_path, compressed):
    recorded = small_bags.camera(2, depth=True, compressed=compressed)
    if compressed:
        recorded[1].message.data = b'no image'
    else:
        recorded[1].message.encoding = 'nonsense'
    with BagReader(write(tmp_path / 'bag', recorded, 'mcap')) as bag:
        topics = find_camera_topics(bag)
    assert topics.image == recorded[1].topic
    assert topics.depth == (None if compressed else small_bags.DEPTH)


def test_two_colour_topics_are_an_error_that_lists_them(tmp_path):
    recorded = [
        small_bags.colour(0, topic='/left/image'),
        small_bags.colour(0, topic='/right/image'),
    ]
    with BagReader(write(tmp_path / 'bag', recorded, 'mcap')) as bag:
        with pytest.raises(
            ValueError, match=r'several colour topics(.|\n)*/left/image(.|\n)*/right'
        ):
            find_camera_topics(bag)
        assert find_camera_topics(bag, image='/right/image').image == '/right/image'


def test_a_bag_without_colour_is_an_error_that_lists_its_topics(tmp_path):
    path = write(tmp_path / 'bag', [small_bags.true_depth(0)], 'mcap')
    expected = r'no colour images(.|\n)*/cam/depth/image_raw'
    with BagReader(path) as bag, pytest.raises(ValueError, match=expected):
        find_camera_topics(bag)


def test_a_mistyped_topic_is_an_error_that_names_the_nearest(tmp_path):
    with BagReader(write(tmp_path / 'bag', small_bags.camera(1), 'mcap')) as bag:
        with pytest.raises(ValueError, match='did you mean /cam/image_raw'):
            find_camera_topics(bag, image='/cam/image_rae')
        with pytest.raises(ValueError, match='is sensor_msgs/msg/CameraInfo, not'):
            find_camera_topics(bag, image=small_bags.INFO)


def test_camera_info_elsewhere_must_be_named_when_there_are_several(tmp_path):
    infos = [
        small_bags.info(0, topic='/a/camera_info'),
        small_bags.info(0, topic='/b/camera_info'),
    ]
    with BagReader(write(tmp_path / 'bag', [small_bags.colour(0), *infos], 'mcap')) as bag:
        with pytest.raises(ValueError, match=r'/a/camera_info(.|\n)*/b/camera_info'):
            find_camera_topics(bag)
        assert (
            find_camera_topics(bag, camera_info='/b/camera_info').camera_info == '/b/camera_info'
        )


def test_no_camera_info_at_all_is_none(tmp_path):
    with BagReader(write(tmp_path / 'bag', [small_bags.colour(0)], 'mcap')) as bag:
        assert find_camera_topics(bag).camera_info is None


def test_depth_of_another_frame_is_not_the_true_depth(tmp_path):
    recorded = [*small_bags.camera(1), small_bags.true_depth(0, frame_id='depth_optical')]
    with BagReader(write(tmp_path / 'bag', recorded, 'mcap')) as bag:
        assert find_camera_topics(bag).depth is None
        assert find_camera_topics(bag, depth=small_bags.DEPTH).depth == small_bags.DEPTH


def test_the_stamp_is_read_without_decoding():
    message = small_bags.colour(7).message
    assert header_stamp_ns(serialize_message(message)) == small_bags.START_NS + 700_000_000


def test_what_is_no_bag_is_refused_with_a_sentence(tmp_path):
    text = tmp_path / 'notes.txt'
    text.write_text('hello')
    folder = tmp_path / 'folder'
    folder.mkdir()
    empty = tmp_path / 'empty.mcap'
    empty.touch()
    truncated = write(tmp_path / 'bag', small_bags.camera(40), 'mcap') / 'bag.mcap'
    truncated.write_bytes(truncated.read_bytes()[:-1000])
    ros1 = write(tmp_path / 'old', small_bags.camera(2), 'ros1')
    ros1.write_bytes(ros1.read_bytes()[:5000])
    for path in (tmp_path / 'nothing', text, folder, empty, truncated, truncated.parent, ros1):
        with pytest.raises(ValueError, match=str(path)):
            BagReader(path)


@pytest.mark.parametrize(
    ('name', 'image', 'depth', 'frames'),
    [
        (
            'tum_fr1_rpy_mcap',
            '/camera/color/image_raw',
            '/camera/aligned_depth_to_color/image_raw',
            30,
        ),
        ('icsl_corridor_db3', '/camera/rgb/image_raw', '/camera/depth_registered/image_raw', 45),
    ],
)
def test_topics_of_the_shared_bags(name, image, depth, frames):
    if not (SHARED_BAGS / name).exists():
        pytest.skip(f'{SHARED_BAGS / name} is not on this machine')
    with BagReader(SHARED_BAGS / name) as bag:
        topics = find_camera_topics(bag)
        assert (topics.image, topics.depth, bag.count(image)) == (image, depth, frames)
        assert topics.camera_info == image.replace('image_raw', 'camera_info')
