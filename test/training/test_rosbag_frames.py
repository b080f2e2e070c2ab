"""Bags of every kind become pairs: matched by stamp, decoded by random access, bounded."""

from __future__ import annotations

from dataclasses import replace
import gc
import json
from pathlib import Path
import pickle
import subprocess
import sys
import tracemalloc

from conftest import SHARED_DATA
import numpy as np
import pytest
from training.bag_files import (
    BASE_NS,
    CAMERA,
    COLOR,
    DEPTH,
    KINDS,
    STEP_NS,
    BagFile,
    color_image,
    depth_image,
)

from llm_mde_train.frame_cache import load_ahead
from llm_mde_train.rosbag_frames import read_bag

needs_shared = pytest.mark.skipif(
    not SHARED_DATA.is_dir(), reason='no shared data beside the repository'
)


def written(folder: Path, kind: str, count: int = 3, **options: object) -> Path:
    path = folder / ('room.bag' if kind == 'ros1' else 'room')
    with BagFile(path, kind) as bag:
        bag.frames(count, **options)
    return path


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_of_bag_gives_what_was_recorded(tmp_path, kind):
    result = read_bag(written(tmp_path, kind, depth_lag_ns=5_000_000))
    assert (len(result.frames), result.unmatched_color, result.unmatched_depth) == (3, 0, 0)
    for number in (2, 0, 1):  # in no order: access is random
        sample = result.frames[number].load()
        np.testing.assert_array_equal(sample.rgb, color_image(number))
        known = np.full((12, 16), (1000 + number) / 1000, np.float32)
        known[:, 0] = np.nan
        np.testing.assert_allclose(sample.depth_m, known, rtol=1e-6)
        assert sample.camera == CAMERA
        assert (sample.scene, sample.max_depth_m) == ('room', 10.0)
        assert sample.stamp_ns == BASE_NS + number * STEP_NS


@pytest.mark.parametrize(('kind', 'suffix'), [('mcap', '.mcap'), ('sqlite3', '.db3')])
def test_a_file_out_of_a_bag_folder_is_a_bag(tmp_path, kind, suffix):
    whole = read_bag(written(tmp_path, kind))
    alone = read_bag(tmp_path / 'room' / f'room{suffix}')
    assert [f.stamp_ns for f in alone.frames] == [f.stamp_ns for f in whole.frames]
    assert alone.frames[0].scene == 'room'
    assert alone.frames[0].files == whole.frames[0].files == (tmp_path / f'room/room{suffix}',)


def test_messages_may_be_compressed(tmp_path):
    with BagFile(tmp_path / 'room', 'sqlite3', compressed=True) as bag:
        bag.frames(2)
    np.testing.assert_array_equal(read_bag(tmp_path / 'room').frames[1].load().rgb, color_image(1))


def test_log_times_that_lag_the_stamps_do_not_matter(tmp_path):
    with BagFile(tmp_path / 'room', lag_ns=7_000_000_000) as bag:
        bag.frames(2)
    assert read_bag(tmp_path / 'room').frames[1].stamp_ns == BASE_NS + STEP_NS


def test_without_stamps_the_log_times_count(tmp_path):
    with BagFile(tmp_path / 'room') as bag:
        bag.frames(0)
        bag.info('/camera/color/camera_info', CAMERA)
        for number in range(2):
            ns = number * STEP_NS
            bag.image(COLOR, color_image(number), 'rgb8', ns=ns, stamped=False)
            bag.image(DEPTH, depth_image(number), '16UC1', ns=ns + 1, stamped=False)
    frames = read_bag(tmp_path / 'room').frames
    assert [frame.stamp_ns for frame in frames] == [BASE_NS, BASE_NS + STEP_NS]
    np.testing.assert_array_equal(frames[1].load().rgb, color_image(1))


def test_messages_recorded_at_one_time_are_told_apart_by_their_stamps(tmp_path):
    with BagFile(tmp_path / 'room') as bag:
        bag.info('/camera/color/camera_info', CAMERA)
        for number in range(2):
            bag.lag_ns = -number * STEP_NS
            bag.image(COLOR, color_image(number), 'rgb8', ns=number * STEP_NS)
            bag.image(DEPTH, depth_image(number), '16UC1', ns=number * STEP_NS)
    frames = read_bag(tmp_path / 'room').frames
    assert [frame.load().rgb[0, 0, 0] for frame in frames] == [10, 11]


def test_what_has_no_partner_is_counted_and_reported(tmp_path):
    with BagFile(tmp_path / 'room') as bag:
        bag.frames(2)
        bag.image(COLOR, color_image(9), 'rgb8', ns=50 * STEP_NS)
        bag.image(DEPTH, depth_image(9), '16UC1', ns=60 * STEP_NS)
        bag.image(DEPTH, depth_image(9), '16UC1', ns=61 * STEP_NS)
    result = read_bag(tmp_path / 'room')
    assert (len(result.frames), result.unmatched_color, result.unmatched_depth) == (2, 1, 2)
    assert 'without a partner: 1 colour, 2 depth' in result.summary()


def test_stamps_too_far_apart_are_refused_with_their_gap(tmp_path):
    path = written(tmp_path, 'mcap', count=1, depth_lag_ns=40_000_000)
    with pytest.raises(ValueError, match=r'within 0\.03 s: the closest are 0\.040 s apart'):
        read_bag(path)
    assert len(read_bag(path, tolerance_s=0.05).frames) == 1


def test_frames_can_be_sent_to_other_processes_and_decoded_in_threads(tmp_path):
    frames = read_bag(written(tmp_path, 'mcap', count=12)).frames
    assert pickle.loads(pickle.dumps(frames)) == frames
    in_threads = [sample.rgb[0, 0, 0] for sample in load_ahead(frames, threads=4)]
    assert in_threads == [10 + number for number in range(12)]
    # In a process of its own: this one has threads of rclpy, which do not survive a fork.
    printed = subprocess.run(
        [sys.executable, '-c', FORK, str(frames[0].bag)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert json.loads(printed) == {'red': in_threads, 'shared_reader': False}


FORK = """
import json, multiprocessing, pathlib, sys
from llm_mde_train.bag_reader import open_bag
from llm_mde_train.rosbag_frames import read_bag

def first_red(frame):
    return int(frame.load().rgb[0, 0, 0])

def reader_id(path):
    return id(open_bag(path))

frames = read_bag(pathlib.Path(sys.argv[1])).frames
with multiprocessing.get_context('fork').Pool(2) as pool:
    red = pool.map(first_red, frames, chunksize=1)
    # A file that is open in both would have one position for both.
    shared = pool.apply(reader_id, [frames[0].bag]) == reader_id(frames[0].bag)
print(json.dumps({'red': red, 'shared_reader': shared}))
"""


def test_a_broken_image_is_refused_with_its_bag_and_stamp(tmp_path):
    with BagFile(tmp_path / 'room') as bag:
        bag.frames(1)
        bag.image(COLOR, color_image(1)[:6], 'rgb8', ns=STEP_NS)
        bag.image(DEPTH, depth_image(1), '16UC1', ns=STEP_NS)
    with pytest.raises(ValueError, match=rf'room at {BASE_NS + STEP_NS} ns: colour \(6, 16, 3\)'):
        read_bag(tmp_path / 'room').frames[1].load()


@pytest.mark.parametrize('kind', ['sqlite3', 'mcap'])
def test_memory_does_not_grow_with_the_bag(tmp_path, kind):
    camera = replace(CAMERA, width=160, height=120)
    path = written(tmp_path, kind, count=70, camera=camera)
    size = sum(f.stat().st_size for f in ([path] if path.is_file() else path.iterdir()))
    gc.collect()
    tracemalloc.start()
    for frame in read_bag(path).frames:
        frame.load()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 6.5e6
    assert peak < 4e6


@pytest.mark.parametrize('name', ['gone', 'empty', 'text.mcap', 'text.db3', 'text.bag', 'text'])
def test_what_is_no_bag_is_refused_in_a_sentence(tmp_path, name):
    (tmp_path / 'empty').mkdir()
    if name.startswith('text'):
        (tmp_path / name).write_text('hello')
    with pytest.raises(ValueError, match=rf'{name} (does not exist|is no bag|cannot be read)'):
        read_bag(tmp_path / name)


@pytest.mark.parametrize('kind', KINDS)
def test_a_bag_that_was_cut_off_is_refused_by_name(tmp_path, kind):
    path = written(tmp_path, kind)
    file = path if path.is_file() else next(f for f in path.iterdir() if f.suffix != '.yaml')
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf'the bag .*{path.name} cannot be read: '):
        read_bag(path)


@needs_shared
def test_real_bag_with_approximate_stamps():
    result = read_bag(SHARED_DATA / 'bags' / 'tum_fr1_rpy_mcap')
    assert len(result.frames) == 30
    assert result.topics.color == '/camera/color/image_raw'  # raw is preferred
    gaps = [f.color_place.stamp_ns - f.depth_place.stamp_ns for f in result.frames]
    assert 0 < np.abs(gaps).max() < 15e6
    sample = result.frames[7].load()
    assert sample.rgb.shape == (480, 640, 3)
    assert 0.5 < np.nanmedian(sample.depth_m) < 3.0
    assert sample.camera.distortion_model == 'plumb_bob'


@needs_shared
def test_real_bag_compressed_is_the_raw_one():
    path = SHARED_DATA / 'bags' / 'tum_fr1_rpy_mcap'
    raw = read_bag(path).frames[3].load()
    small = read_bag(
        path,
        color_topic='/camera/color/image_raw/compressed',
        depth_topic='/camera/aligned_depth_to_color/image_raw/compressedDepth',
    )
    sample = small.frames[3].load()
    np.testing.assert_array_equal(sample.depth_m, raw.depth_m)
    assert np.abs(sample.rgb.astype(int) - raw.rgb).mean() < 4


@needs_shared
def test_real_bag_of_the_corridor_is_as_far_as_the_corridor():
    result = read_bag(SHARED_DATA / 'bags' / 'icsl_corridor_db3')
    sample = result.frames[0].load()
    assert (len(result.frames), result.unmatched_color) == (45, 0)
    assert 1.0 < np.nanmedian(sample.depth_m) < 9.0
    assert sample.rgb.shape == (240, 320, 3)
