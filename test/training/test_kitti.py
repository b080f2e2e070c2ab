"""KITTI: depth / 256, the rectified camera, images without depth."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from llm_mde_train.kitti import read_kitti

DATE, DRIVE = '2011_09_26', '2011_09_26_drive_0002_sync'
RGB = f'{DATE}/{DRIVE}/image_02/data/0000000069.png'
DEPTH = f'{DRIVE}/proj_depth/groundtruth/image_02/0000000069.png'
CALIBRATION = """calib_time: 09-Jan-2012 13:57:47
P_rect_00: 1 0 2 0 0 3 4 0 0 0 1 0
P_rect_02: 7.2e+01 0.0 6.1e+01 4.4e+01 0.0 7.3e+01 1.7e+01 2.1e-01 0.0 0.0 1.0 2.7e-03
"""


@pytest.fixture
def kitti(tmp_path) -> Path:
    for name in (RGB, DEPTH):
        (tmp_path / name).parent.mkdir(parents=True)
    cv2.imwrite(str(tmp_path / RGB), np.full((37, 122, 3), (0, 0, 200), np.uint8))
    depth = np.zeros((37, 122), np.uint16)
    depth[20, 30] = 256 * 12 + 128
    cv2.imwrite(str(tmp_path / DEPTH), depth)
    path = tmp_path / 'eigen.txt'
    path.write_text(f'{RGB} {DEPTH} 72.15377\n{RGB} None 72.15377\n')
    return path


def test_depth_camera_and_drive(kitti):
    (kitti.parent / DATE / 'calib_cam_to_cam.txt').write_text(CALIBRATION)
    (frame,) = read_kitti(kitti)  # the one without depth is left out
    sample = frame.load()
    assert sample.depth_m[20, 30] == 12.5
    assert np.isfinite(sample.depth_m).sum() == 1
    assert sample.rgb[0, 0].tolist() == [200, 0, 0]
    assert (sample.scene, sample.stamp_ns, sample.max_depth_m) == (DRIVE, 69, 80.0)
    camera = sample.camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (72.0, 73.0, 61.0, 17.0)


@pytest.mark.parametrize(
    ('old', 'new', 'sentence'),
    [
        ('P_rect_02', 'P_rect_03', 'has no line P_rect_02'),
        ('2.1e-01', 'x', r'cam\.txt:3 must have 12 numbers'),
        (' 2.7e-03', '', r'cam\.txt:3 must have 12 numbers'),
    ],
)
def test_what_is_wrong_with_the_calibration_is_said(kitti, old, new, sentence):
    path = kitti.parent / DATE / 'calib_cam_to_cam.txt'
    path.write_text(CALIBRATION.replace(old, new))
    (frame,) = read_kitti(kitti)
    with pytest.raises(ValueError, match=sentence):
        frame.load()


def test_without_calibration_the_axis_is_the_centre(kitti):
    camera = read_kitti(kitti)[0].load().camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (72.15377, 72.15377, 60.5, 18.0)


def test_depth_may_lie_elsewhere(kitti, tmp_path):
    (tmp_path / 'depths').mkdir()
    (tmp_path / DRIVE).rename(tmp_path / 'depths' / DRIVE)
    assert len(read_kitti(kitti, depth_root=tmp_path / 'depths')) == 1
    with pytest.raises(ValueError, match=r'0069\.png does not exist; llm_mde_train/kitti\.py'):
        read_kitti(kitti)
