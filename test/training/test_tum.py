"""TUM recordings: association by stamp, 5000 units a metre, published cameras."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from llm_mde_core import Camera
from llm_mde_train.tum import read_tum


@pytest.fixture
def recording(tmp_path) -> Path:
    folder = tmp_path / 'rgbd_dataset_freiburg1_rpy'
    for name in ('rgb', 'depth'):
        (folder / name).mkdir(parents=True)
    cv2.imwrite(str(folder / 'rgb/a.png'), np.full((480, 640, 3), (0, 0, 200), np.uint8))
    depth = np.full((480, 640), 7500, np.uint16)
    depth[0, 0] = 0
    cv2.imwrite(str(folder / 'depth/a.png'), depth)
    (folder / 'rgb.txt').write_text(
        '# color images\n1305031102.175304 rgb/a.png\n1305031102.211214 rgb/a.png\n'
    )
    (folder / 'depth.txt').write_text(
        '# depth maps\n1305031102.160407 depth/a.png\n1305031103 depth/a.png\n'
    )
    return folder


def test_pairs_units_and_camera(recording):
    (frame,) = read_tum(recording)
    sample = frame.load()
    assert sample.stamp_ns == 1305031102_175304000
    assert sample.depth_m[5, 5] == 1.5
    assert np.isnan(sample.depth_m[0, 0])
    assert sample.rgb[0, 0].tolist() == [200, 0, 0]
    assert (sample.scene, sample.max_depth_m) == (recording.name, 10.0)
    assert (sample.camera.fx, sample.camera.cy) == (517.3, 255.3)
    assert sample.camera.distortion[0] == 0.2624


def test_other_recordings_need_their_camera(recording):
    other = recording.rename(recording.with_name('my_room'))
    with pytest.raises(ValueError, match=r'camera of .*my_room is not known'):
        read_tum(other)
    camera = Camera.from_hfov(width=640, height=480, hfov_deg=60.0)
    assert read_tum(other, camera=camera)[0].camera == camera


def test_errors_say_what_is_wrong(recording):
    (recording / 'depth.txt').write_text('1305031109.0 depth/a.png\n')
    with pytest.raises(ValueError, match=r'no stamps of rgb\.txt and depth\.txt .* within 20 ms'):
        read_tum(recording)
    (recording / 'depth.txt').write_text('1305031102.16 depth/gone.png\n')
    with pytest.raises(ValueError, match=r'gone\.png does not exist'):
        read_tum(recording)
    (recording / 'depth.txt').write_text('soon depth/a.png\n')
    with pytest.raises(ValueError, match=r"depth\.txt:1 must be .*, it is 'soon depth/a\.png'"):
        read_tum(recording)
    (recording / 'depth.txt').unlink()
    with pytest.raises(ValueError, match=r'depth\.txt does not exist: .* no recording of the TUM'):
        read_tum(recording)
