import cv2
import numpy as np
import pytest

from llm_mde_ros.picture import DemoFrame, draw_frame

pytest.importorskip('matplotlib')
NOTHING = np.zeros((0, 3), np.float32)


@pytest.mark.parametrize('with_truth', [True, False])
def test_the_picture_shows_colour_and_depth_on_one_scale(tmp_path, with_truth):
    depth_m = np.tile(np.linspace(1, 4, 64, dtype=np.float32), (48, 1))
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[:] = (255, 0, 255)
    points = np.random.default_rng(0).uniform(-1, 3, (500, 3)).astype(np.float32)
    frame = DemoFrame(rgb, depth_m, depth_m if with_truth else None, points, None, points[:100])
    draw_frame(tmp_path / 'demo.png', frame, title='a bag', subtitle='1 image in')
    picture = cv2.imread(str(tmp_path / 'demo.png'))
    height, width = picture.shape[:2]
    assert (width, height) == (1600, 1000)
    share = (picture == (255, 0, 255)).all(axis=2).mean()  # of the colour image
    assert 0.05 < share < 0.25
    if with_truth:  # the same depth looks the same, whoever says it
        row = picture[int(0.3 * height)]
        magenta = np.flatnonzero((row == (255, 0, 255)).all(axis=1))
        step = int((magenta[-1] - magenta[0]) * 1.04)
        middle = (magenta[0] + magenta[-1]) // 2 + step
        assert np.abs(row[middle].astype(int) - row[middle + step]).max() < 12


def test_a_frame_without_any_depth_can_be_drawn(tmp_path):
    unknown = np.full((8, 8), np.nan, np.float32)
    frame = DemoFrame(np.zeros((8, 8, 3), np.uint8), unknown, None, NOTHING, None, NOTHING)
    draw_frame(tmp_path / 'demo.png', frame, title='dark', subtitle='')
    assert (tmp_path / 'demo.png').stat().st_size > 0
