"""Every source that is named is read, and the fingerprint tells data sets apart."""

from __future__ import annotations

from pathlib import Path
import shutil

import pytest
from training.bag_files import BagFile
from training.conftest import plain_sample

from llm_mde_train import sources
from llm_mde_train.sources import fingerprint, training_frames


def test_index_and_bags_together_keep_their_order(index, tmp_path):
    with BagFile(tmp_path / 'room') as bag:
        bag.frames(2)
    frames = training_frames(index=str(index), sets=['office'], bags=[str(tmp_path / 'room')])
    assert [frame.scene for frame in frames] == ['office', 'room', 'room']
    assert frames[1].load() is frames[1].load()  # decoded once


def test_a_bag_can_be_named_with_its_topics_and_what_it_gave_is_told(tmp_path):
    with BagFile(tmp_path / 'room') as bag:
        bag.frames(2)
    told: list[str] = []
    bag = {'path': str(tmp_path / 'room'), 'max_depth_m': 4.0}
    frames = training_frames(bags=[bag], told=told.append)
    assert [frame.load().max_depth_m for frame in frames] == [4.0, 4.0]
    (sentence,) = told
    assert sentence.startswith(f'{tmp_path / "room"}: 2 pairs of ')
    assert sentence.endswith('without a partner: 0 colour, 0 depth')
    with pytest.raises(ValueError, match='/none'):
        training_frames(bags=[bag | {'color_topic': '/none'}])


@pytest.mark.parametrize(
    ('option', 'value', 'reader', 'options'),
    [
        ('nyu', 'a.mat', 'read_nyu', {'split': 'train'}),
        ('nyu_list', 'a.txt', 'read_nyu_list', {}),
        ('kitti', 'b.txt', 'read_kitti', {}),
        ('tum', ['desk'], 'read_tum', {}),
    ],
)
def test_other_sources_are_read_by_their_readers(monkeypatch, option, value, reader, options):
    seen = []

    def read(path: Path, **given: object) -> list:
        seen.append((path, given))
        return [plain_sample()]

    monkeypatch.setattr(sources, reader, read)
    assert len(training_frames(**{option: value})) == 1
    assert seen == [(Path(value if isinstance(value, str) else value[0]), options)]


def test_nothing_named_is_nothing_and_sets_need_their_index():
    assert training_frames() == []
    with pytest.raises(ValueError, match='the sets office are of which index'):
        training_frames(sets=['office'])


def test_fingerprint_follows_the_frames_and_not_the_place(index, tmp_path):
    frames = training_frames(index=str(index), sets=['kitchen_train', 'office'])
    whole = fingerprint(frames)
    copy = shutil.copytree(index.parent, tmp_path / 'copy')
    assert whole == fingerprint(
        training_frames(index=str(copy / 'index.csv'), sets=['kitchen_train', 'office'])
    )
    assert len({whole, fingerprint(frames[:2]), fingerprint(frames[::-1]), fingerprint([])}) == 4
    with (index.parent / '0_rgb.png').open('ab') as file:
        file.write(b'more')
    assert fingerprint(frames) != whole


def test_fingerprint_of_samples_in_memory_is_of_their_pixels():
    assert fingerprint([plain_sample(1.0)]) == fingerprint([plain_sample(1.0)])
    assert fingerprint([plain_sample(1.0)]) != fingerprint([plain_sample(2.0)])
