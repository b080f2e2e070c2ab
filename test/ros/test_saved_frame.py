"""A saved frame is there whole or not at all, and never in place of another."""

from __future__ import annotations

from dataclasses import replace
import json
import os
from pathlib import Path
import resource
import signal
import time

from child_process import ChildProcess, kill, on_call
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
import torch
import yaml

from llm_mde_core.geometry import Camera
from llm_mde_core.prediction import DepthPrediction
from llm_mde_ros.frame_times import FrameTimes
from llm_mde_ros.saved_frame import ABANDONED_AFTER_S, UNFINISHED, WorkedFrame, save_frame

FILES = {'camera_info.yaml', 'cloud.ply', 'color.png', 'depth.npy', 'depth.png', 'info.json'}


def frame_of(depth_m: np.ndarray) -> WorkedFrame:
    height, width = depth_m.shape
    header = Header(frame_id='camera')
    header.stamp.sec, header.stamp.nanosec = 12, 34
    rng = np.random.default_rng(0)  # noise, which a PNG cannot make smaller
    return WorkedFrame(
        rgb=rng.integers(0, 256, (height, width, 3), np.uint8),
        prediction=DepthPrediction(
            torch.from_numpy(depth_m), lambda: torch.ones(height, width), {}
        ),
        camera=Camera.from_hfov(width=width, height=height, hfov_deg=60.0),
        source_info=None,
        header=header,
        times=FrameTimes(received_s=0.0),
    )


def files_of(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()}


def test_two_frames_of_one_stamp_are_both_kept(tmp_path: Path):
    frame = frame_of(np.full((4, 6), 2.0, np.float32))
    saved = [save_frame(frame, folder=tmp_path / 'new', about={'a': 1}) for _ in range(3)]
    names = [f'frame_12_000000034{suffix}' for suffix in ('', '_2', '_3')]
    assert [path.name for path in saved] == names
    assert files_of(tmp_path / 'new') == set(names)
    assert all(files_of(path) == FILES for path in saved)


def test_what_is_unknown_stays_so(tmp_path: Path):
    depth_m = np.full((4, 6), np.nan, np.float32)
    saved = save_frame(frame_of(depth_m), folder=tmp_path, about={})
    about = json.loads((saved / 'info.json').read_text(), parse_constant=pytest.fail)
    assert about['stats']['valid_fraction'] == 0
    assert about['stats']['depth_median_m'] is None
    assert np.isnan(np.load(saved / 'depth.npy')).all()
    assert b'element vertex 0\n' in (saved / 'cloud.ply').read_bytes()


def test_the_calibration_can_be_read_again(tmp_path: Path):
    frame = frame_of(np.full((4, 6), 2.0, np.float32))
    source = CameraInfo(width=6, height=4, distortion_model='plumb_bob')
    source.d = [1e-5, 0.0, 0.0, 0.0, 0.0]  # text in YAML 1.1, if it is written so
    source.k = [5.0, 0.0, 2.5, 0.0, 5.0, 1.5, 0.0, 0.0, 1.0]
    saved = save_frame(replace(frame, source_info=source), folder=tmp_path, about={})
    calibration = yaml.safe_load((saved / 'camera_info.yaml').read_text())
    assert calibration['distortion_coefficients']['data'] == list(source.d)
    assert calibration['camera_matrix'] == {'rows': 3, 'cols': 3, 'data': list(source.k)}
    assert calibration['projection_matrix']['cols'] == 4


@pytest.mark.parametrize(
    'moment', [('write_bytes', 1), ('write_bytes', 3), ('write_text', 1), ('rename', 1)]
)
def test_a_kill_leaves_no_half_of_a_frame_and_what_it_leaves_is_removed_later(
    tmp_path: Path, moment: tuple[str, int]
):
    def save() -> None:
        on_call(Path, *moment, kill)
        save_frame(frame_of(np.full((4, 6), 2.0, np.float32)), folder=tmp_path, about={})

    assert ChildProcess(save).end()[0] == -signal.SIGKILL
    (abandoned,) = files_of(tmp_path)
    assert abandoned.startswith(UNFINISHED)
    frame = frame_of(np.full((4, 6), 2.0, np.float32))
    first = save_frame(frame, folder=tmp_path, about={})
    assert files_of(tmp_path) == {abandoned, first.name}  # another node may be writing it
    long_ago_s = time.time() - ABANDONED_AFTER_S - 1
    os.utime(tmp_path / abandoned, (long_ago_s, long_ago_s))
    second = save_frame(frame, folder=tmp_path, about={})
    assert files_of(tmp_path) == {first.name, second.name}


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path):
    frame = frame_of(np.full((200, 300), 2.0, np.float32))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for bound in (100, 200_000, 500_000):  # at the first file, and at later ones
        resource.setrlimit(resource.RLIMIT_FSIZE, (bound, hard))
        try:
            with pytest.raises(OSError, match='File too large'):
                save_frame(frame, folder=tmp_path, about={})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert files_of(tmp_path) == set()
    assert files_of(save_frame(frame, folder=tmp_path, about={})) == FILES
