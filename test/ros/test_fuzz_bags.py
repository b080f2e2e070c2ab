"""Damaged bags: what can be read is, the rest is refused with a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
import shutil

from fuzzing import damaged_bytes, fuzz, little_memory
from hypothesis import given
from hypothesis import strategies as st
import pytest
import small_bags

from llm_mde_ros.bags import BagReader, find_camera_topics, to_rgb
from llm_mde_ros.camera_history import CameraHistory
from llm_mde_train.rosbag_frames import read_bag

KINDS = ('mcap', 'sqlite3', 'ros1')


@pytest.fixture(scope='module')
def bags(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    folder, recorded = tmp_path_factory.mktemp('bags'), small_bags.camera(3, depth=True)
    made = {kind: folder / kind for kind in KINDS[:2]} | {'ros1': folder / 'ros1.bag'}
    for kind in KINDS[:2]:
        small_bags.write_rosbag2(made[kind], recorded, storage=kind)
    small_bags.write_ros1(made['ros1'], recorded)
    with little_memory(3.0):
        yield made


@pytest.mark.parametrize('kind', KINDS)
@fuzz(20)
@given(data=st.data())
def test_a_damaged_bag_is_read_or_refused(
    data: st.DataObject, kind: str, bags: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp('damaged')
    bag = folder / bags[kind].name
    (shutil.copytree if bags[kind].is_dir() else shutil.copy)(bags[kind], bag)
    file = data.draw(st.sampled_from(sorted(bag.iterdir()))) if bag.is_dir() else bag
    file.write_bytes(data.draw(damaged_bytes(file.read_bytes())))
    with suppress(ValueError), BagReader(bag) as reader:
        topics = find_camera_topics(reader)
        CameraHistory(reader, topics.camera_info)
        for message in reader.messages([topics.image]):
            with suppress(ValueError):  # replay counts it as dropped
                rgb = to_rgb(message.decode())
                assert rgb.shape[2] == 3
    with suppress(ValueError):
        for frame in read_bag(bag).frames:
            frame.load()
    shutil.rmtree(folder)
