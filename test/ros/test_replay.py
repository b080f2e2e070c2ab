from dataclasses import replace
import json
from pathlib import Path
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability
import small_bags
import yaml

from llm_mde_ros.bags import BagReader, to_depth
from llm_mde_ros.conversions import cloud_to_points
from llm_mde_ros.replay import ReplayOptions
from llm_mde_ros.replay import replay as run_replay
from llm_mde_ros.resumable_bag import ResumableBag

SHARED_BAGS = Path(__file__).resolve().parents[3] / 'shared' / 'data' / 'bags'
OUTPUTS = ('/depth/image', '/depth/camera_info', '/depth/preview', '/points')


@pytest.fixture
def options(tiny_model_dir) -> ReplayOptions:
    return ReplayOptions(model=str(tiny_model_dir), device='cpu')


@pytest.fixture
def bag(tmp_path) -> Path:
    return small_bags.write_rosbag2(tmp_path / 'bag', small_bags.camera(6))


def contents(path: Path) -> list[tuple]:
    """Return the decoded messages of a bag with their times."""
    with BagReader(path) as reader:
        return [(m.topic, m.time_ns, m.decode()) for m in reader.messages()]


def by_topic(path: Path) -> dict[str, list]:
    """Return the messages of a bag by topic."""
    with BagReader(path) as reader:
        return {topic: list(reader.messages([topic])) for topic in reader.topics}


def test_every_image_gets_depth_info_preview_and_points_at_its_time(bag, tmp_path, options):
    summary = run_replay(bag, tmp_path / 'out', options)

    assert (summary.images, summary.dropped, summary.warning) == (6, 0, '')
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['metadata.yaml', 'out_0.mcap']
    assert not (tmp_path / 'out.unfinished').exists()
    made = by_topic(tmp_path / 'out')
    assert set(made) == set(OUTPUTS)
    images = by_topic(bag)[small_bags.IMAGE]
    for topic in OUTPUTS:
        assert [m.stamp_ns for m in made[topic]] == [m.stamp_ns for m in images]
        assert [m.time_ns for m in made[topic]] == [m.time_ns for m in images]
        assert {m.decode().header.frame_id for m in made[topic]} == {'cam_optical'}
    depth = made['/depth/image'][0].decode()
    assert (depth.encoding, depth.width, depth.height) == ('32FC1', 64, 48)
    assert made['/depth/camera_info'][0].decode().k[0] == small_bags.FX
    points, colours = cloud_to_points(made['/points'][0].decode())
    np.testing.assert_allclose(points[..., 2], to_depth(depth)[::2, ::2])  # stride 2
    np.testing.assert_array_equal(colours, small_bags.picture(0)[::2, ::2])


@pytest.mark.parametrize('kind', ['sqlite3', 'ros1', 'compressed'])
def test_other_formats_are_replayed_too(tmp_path, options, kind):
    recorded = small_bags.camera(3, compressed=kind == 'compressed')
    if kind == 'ros1':
        bag = small_bags.write_ros1(tmp_path / 'old.bag', recorded)
    else:
        storage = 'mcap' if kind == 'compressed' else kind
        bag = small_bags.write_rosbag2(tmp_path / 'bag', recorded, storage=storage)
    run_replay(bag, tmp_path / 'out', options)
    made = by_topic(tmp_path / 'out')
    assert [len(made[topic]) for topic in OUTPUTS] == [3] * 4


@pytest.mark.parametrize('kind', ['mcap', 'ros1'])
def test_originals_are_copied_unchanged_with_latched_transforms(tmp_path, options, kind):
    recorded = [small_bags.static_transform(), *small_bags.camera(3, depth=True)]
    if kind == 'ros1':
        bag = small_bags.write_ros1(tmp_path / 'old.bag', recorded)
    else:
        bag = small_bags.write_rosbag2(tmp_path / 'bag', recorded)
    options = replace(options, with_originals=True, namespace='/mono')
    summary = run_replay(bag, tmp_path / 'out', options)

    assert summary.left_out == ()
    before, after = by_topic(bag), by_topic(tmp_path / 'out')
    for topic, messages in before.items():
        assert after[topic] == messages
    assert len(after['/mono/depth/image']) == 3
    with AnyReader([tmp_path / 'out']) as reader:
        (static,) = [c for c in reader.connections if c.topic == '/tf_static']
        assert static.msgtype == 'tf2_msgs/msg/TFMessage'
        assert static.ext.offered_qos_profiles[0].durability == QosDurability.TRANSIENT_LOCAL
        (made,) = [c for c in reader.connections if c.topic == small_bags.INFO]
        assert 'float64[9] k' in made.msgdef.data  # the ROS 2 definition, also for a ROS 1 bag


def test_an_output_never_mixes_with_an_original(tmp_path, options):
    recorded = [*small_bags.camera(1), small_bags.true_depth(0, topic='/depth/image')]
    bag = small_bags.write_rosbag2(tmp_path / 'bag', recorded)
    with pytest.raises(ValueError, match='/depth/image already; choose another namespace'):
        run_replay(bag, tmp_path / 'out', replace(options, with_originals=True))


def test_an_existing_bag_is_never_touched(bag, tmp_path, options):
    (tmp_path / 'out').mkdir()
    with pytest.raises(ValueError, match='exists already'):
        run_replay(bag, tmp_path / 'out', options)
    assert list((tmp_path / 'out').iterdir()) == []


def test_without_camera_info_a_field_of_view_and_a_warning(tmp_path, options):
    bag = small_bags.write_rosbag2(tmp_path / 'bag', [small_bags.colour(n) for n in range(2)])
    summary = run_replay(bag, tmp_path / 'out', replace(options, hfov_deg=90.0))
    assert '90 degrees' in summary.warning
    info = by_topic(tmp_path / 'out')['/depth/camera_info'][0].decode()
    np.testing.assert_allclose(info.k[0], 32.0, rtol=1e-6)  # 64 / 2 / tan 45°


def test_rectified_images_beside_the_camera_info_of_the_raw_ones(tmp_path, options):
    recorded = small_bags.camera(1)
    recorded[0].message.d = [-0.2, 0.1, 0.0, 0.0, 0.0]
    recorded[0].message.p[0] = 50.0
    bag = small_bags.write_rosbag2(tmp_path / 'bag', recorded)
    for rectified, fx in ((True, 50.0), (False, small_bags.FX)):
        out = tmp_path / f'out_{rectified}'
        run_replay(bag, out, replace(options, image_rectified=rectified))
        info = by_topic(out)['/depth/camera_info'][0].decode()
        assert (info.k[0], any(info.d)) == (fx, not rectified)


def test_an_unusable_image_is_dropped_and_counted(tmp_path, options):
    recorded = small_bags.camera(3)
    recorded[3].message.encoding = 'nonsense'
    bag = small_bags.write_rosbag2(tmp_path / 'bag', recorded)
    summary = run_replay(bag, tmp_path / 'out', options)
    assert (summary.images, summary.dropped) == (3, 1)
    assert 'nonsense' in summary.reason
    assert len(by_topic(tmp_path / 'out')['/depth/image']) == 2


@pytest.mark.parametrize('bad', [(4, 5), (0,), (2, 3)])
def test_images_that_fill_no_part_leave_the_times_of_the_bag_alone(tmp_path, options, bad):
    recorded = small_bags.camera(6)
    for number in bad:
        recorded[2 * number + 1].message.encoding = 'nonsense'
    bag = small_bags.write_rosbag2(tmp_path / 'bag', recorded)
    run_replay(bag, tmp_path / 'out', replace(options, part_bytes=15_000))  # two images a part
    times = [time_ns for _, time_ns, _ in contents(tmp_path / 'out')]
    metadata = yaml.safe_load((tmp_path / 'out' / 'metadata.yaml').read_text())
    metadata = metadata['rosbag2_bagfile_information']
    assert metadata['starting_time']['nanoseconds_since_epoch'] == min(times)
    assert metadata['duration']['nanoseconds'] == max(times) - min(times)
    assert len(metadata['files']) > 1
    assert all(file['message_count'] for file in metadata['files'])


def test_when_no_image_can_be_used_nothing_is_left_behind(tmp_path, options):
    recorded = [small_bags.info(0), small_bags.colour(0)]
    recorded[0].message.width = 99
    bag = small_bags.write_rosbag2(tmp_path / 'bag', recorded)
    with pytest.raises(ValueError, match='None of the 1 images'):
        run_replay(bag, tmp_path / 'out', options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['bag']


def test_a_region_of_interest_that_moves_moves_the_principal_point(tmp_path, options):
    recorded = small_bags.camera(2)
    for number, offset in enumerate((8, 20)):
        info = recorded[2 * number].message
        info.width, info.height = 2 * small_bags.WIDTH, 2 * small_bags.HEIGHT
        info.roi.x_offset, info.roi.y_offset = offset, 4
        info.roi.width, info.roi.height = small_bags.WIDTH, small_bags.HEIGHT
    bag = small_bags.write_rosbag2(tmp_path / 'bag', recorded)
    run_replay(bag, tmp_path / 'out', options)
    made = by_topic(tmp_path / 'out')['/depth/camera_info']
    cx = (small_bags.WIDTH - 1) / 2
    assert [message.decode().k[2] for message in made] == [cx - 8, cx - 20]


def test_each_image_of_a_loop_has_the_camera_info_of_its_turn(tmp_path, options):
    recorded = [
        replace(each, time_ns=each.time_ns + played * 6_000_000_000)
        for played, fx in enumerate((60.0, 70.0, 80.0))
        for number in (0, 20)
        for each in (small_bags.colour(number), small_bags.info(number, fx=fx))
    ]
    bag = small_bags.write_rosbag2(tmp_path / 'bag', recorded)
    run_replay(bag, tmp_path / 'out', options)
    made = by_topic(tmp_path / 'out')['/depth/camera_info']
    assert [message.decode().k[0] for message in made] == [60.0, 60.0, 70.0, 70.0, 80.0, 80.0]


def test_a_killed_replay_goes_on_and_ends_up_the_same(tmp_path, options):
    bag = small_bags.write_rosbag2(tmp_path / 'bag', small_bags.camera(40))
    options = replace(options, part_bytes=200_000, with_originals=True)
    whole, broken = tmp_path / 'whole' / 'out', tmp_path / 'broken' / 'out'
    run_replay(bag, whole, options)

    unfinished = broken.with_name('out.unfinished')
    process = start_replay(bag, broken, options)
    while len(list(unfinished.glob('bag/*.mcap'))) < 2:
        assert process.poll() is None, 'ended before it could be killed'
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not broken.exists()
    parts_before = len(json.loads((unfinished / 'progress.json').read_text())['parts'])
    assert parts_before >= 1

    with pytest.raises(ValueError, match=r'begun with(.|\n)*hfov_deg = 60'):
        run_replay(bag, broken, replace(options, hfov_deg=50.0))
    seen = []
    run_replay(bag, broken, options, on_frame=lambda done, total: seen.append(done))

    assert seen[0] > 0  # it did not begin again
    files = sorted(p.name for p in whole.iterdir())
    assert len(files) > 5
    assert sorted(p.name for p in broken.iterdir()) == files
    for name in files:  # not byte by byte: CDR leaves the bytes between aligned fields to chance
        assert (broken / name).stat().st_size == (whole / name).stat().st_size, name
    assert contents(broken) == contents(whole)
    assert not unfinished.exists()
    metadata = yaml.safe_load((broken / 'metadata.yaml').read_text())
    metadata = metadata['rosbag2_bagfile_information']
    assert (
        metadata['message_count'] == 40 * 6 == sum(f['message_count'] for f in metadata['files'])
    )
    with AnyReader([broken]) as reader:
        times = [time_ns for _, time_ns, _ in reader.messages()]
    assert times == sorted(times)
    assert len(times) == 40 * 6


def start_replay(bag: Path, out: Path, options: ReplayOptions) -> subprocess.Popen:
    """Start a replay as a process of its own."""
    code = (
        'import sys, torch\n'
        'from llm_mde_ros.replay import *\n'
        'torch.set_num_threads(1)\n'
        f'replay({str(bag)!r}, {str(out)!r}, {options!r})\n'
    )
    code = 'from llm_mde_ros.outputs import OutputSettings\n' + code
    return subprocess.Popen([sys.executable, '-c', code])


def test_two_replays_cannot_write_the_same_bag(tmp_path):
    expected = pytest.raises(ValueError, match='Another process is writing')
    with ResumableBag(tmp_path / 'out', job={}), expected:
        ResumableBag(tmp_path / 'out', job={})
    ResumableBag(tmp_path / 'out', job={}).discard()


@pytest.mark.parametrize('name', ['tum_fr1_rpy_mcap', 'icsl_corridor_db3'])
def test_replay_of_the_shared_bags(name, tmp_path, options):
    if not (SHARED_BAGS / name).exists():
        pytest.skip(f'{SHARED_BAGS / name} is not on this machine')
    summary = run_replay(SHARED_BAGS / name, tmp_path / 'out', options)
    assert summary.dropped == 0
    made = by_topic(tmp_path / 'out')
    assert {len(made[topic]) for topic in OUTPUTS} == {summary.images}
    source = by_topic(SHARED_BAGS / name)[summary.topics.image]
    assert [m.stamp_ns for m in made['/depth/image']] == [m.stamp_ns for m in source]
