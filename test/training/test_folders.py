"""Folders of real frames: units, unknown depth, tiers, and errors that say what is wrong."""

from __future__ import annotations

import pickle

from conftest import SHARED_DATA
import cv2
import numpy as np
import pytest

from llm_mde_train.folders import read_index


def test_millimetres_become_metres_and_zero_unknown(index):
    first = read_index(index, sets=['kitchen_train'])[0].load()
    assert first.depth_m.dtype == np.float32
    assert np.isnan(first.depth_m[:, 0]).all()
    np.testing.assert_array_equal(first.depth_m[:, 1:], np.float32(1.0))


def test_colour_is_rgb_and_camera_and_range_are_the_rows(index):
    first = read_index(index)[0].load()
    assert first.rgb.dtype == np.uint8
    assert first.rgb[0, 0].tolist() == [200, 0, 0]
    camera = first.camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (55.0, 56.0, 31.5, 23.5)
    assert (first.scene, first.max_depth_m) == ('kitchen', 8.0)


def test_only_trusted_tiers_of_the_wanted_sets_in_their_order(index):
    medians = [np.nanmedian(frame.load().depth_m) for frame in read_index(index)]
    assert medians == [1.0, 2.0, 4.0]
    assert [s.scene for s in read_index(index, sets=['office'])] == ['office']
    assert read_index(index, sets=[]) == []


def test_unknown_set_lists_the_known(index):
    with pytest.raises(ValueError, match=r"no set 'ofice'.*kitchen_train, office"):
        read_index(index, sets=['ofice'])


@pytest.mark.parametrize(
    ('old', 'new', 'sentence'),
    [
        (',fx,', ',focal,', r'index\.csv:1 has no column fx'),
        ('office,A,3_rgb.png,3_depth.png,64,', 'office,A,3_rgb.png,3_depth.png,wide,', "'wide'"),
        ('55.0,56.0,31.5,23.5,office,8.0', '55.0,far,31.5,23.5,office,8.0', 'csv:5: fy .*far'),
        (',56.0,31.5,23.5,office,8.0', '', r'csv:5: fy must be a number, it is None'),
    ],
)
def test_what_is_wrong_with_the_index_is_said_with_its_line(index, old, new, sentence):
    text = index.read_text(encoding='utf-8')
    assert old in text
    index.write_text(text.replace(old, new), encoding='utf-8')
    with pytest.raises(ValueError, match=sentence):
        read_index(index)


def test_missing_image_is_named(index):
    (index.parent / '3_depth.png').unlink()
    with pytest.raises(ValueError, match=r'3_depth\.png'):
        read_index(index, sets=['office'])


def test_broken_image_is_named_when_it_is_loaded(index):
    (index.parent / '3_rgb.png').write_bytes(b'no image')
    frame = read_index(index, sets=['office'])[0]
    with pytest.raises(ValueError, match=r'cannot read .*3_rgb\.png'):
        frame.load()


def test_nothing_is_decoded_before_it_is_loaded(index, monkeypatch):
    def refuse(*_):
        raise AssertionError('decoded')

    monkeypatch.setattr(cv2, 'imread', refuse)
    frames = read_index(index)
    assert [frame.stamp_ns for frame in frames] == [0, 1, 3]
    assert frames[2].files == (index.parent / '3_rgb.png', index.parent / '3_depth.png')
    assert pickle.loads(pickle.dumps(frames)) == frames


def test_depth_that_is_not_16_bit_is_refused(index):
    cv2.imwrite(str(index.parent / '3_depth.png'), np.ones((48, 64), np.uint8))
    with pytest.raises(ValueError, match=r'3_depth\.png must be 16-bit depth .*, it is uint8'):
        read_index(index, sets=['office'])[0].load()


def test_depth_of_another_size_is_refused(index):
    cv2.imwrite(str(index.parent / '3_depth.png'), np.ones((24, 32), np.uint16))
    with pytest.raises(ValueError, match=r'depth \(24, 32\) and camera \(48, 64\)'):
        read_index(index, sets=['office'])[0].load()


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason='no shared data beside the repository')
def test_shared_corridor_is_as_far_as_its_index_says():
    frames = read_index(SHARED_DATA / 'index.csv', sets=['icsl_corridor'])
    assert len(frames) == 15
    samples = [frame.load() for frame in frames]
    for sample in samples:
        assert sample.scene == 'snu_corridor'
        assert 1.0 < np.nanmedian(sample.depth_m) < 9.0
        assert np.nanmin(sample.depth_m) > 0.1
