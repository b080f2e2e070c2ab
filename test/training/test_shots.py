"""Frames that teach, stop and judge: apart in time; the shots stand for the recording."""

from __future__ import annotations

from dataclasses import dataclass, replace
import random
import weakref

import numpy as np
import pytest
from training.conftest import plain_sample

from llm_mde_train.samples import Sample
from llm_mde_train.shots import CANDIDATES_PER_SHOT, pick_shots, split_blocks, spread


def recording(count: int, scene: str = 'room') -> list[Sample]:
    return [
        replace(plain_sample(1.0 + 0.01 * i, scene=scene), stamp_ns=10**9 * i)
        for i in range(count)
    ]


def stamps(samples: list[Sample]) -> list[int]:
    return [sample.stamp_ns // 10**9 for sample in samples]


def blocks_of(count: int) -> list[list[int]]:
    frames = recording(count)
    random.Random(0).shuffle(frames)
    blocks = split_blocks(frames)
    return [stamps(block) for block in (blocks.shots, blocks.validation, blocks.test)]


def test_blocks_follow_each_other_and_share_no_frame():
    assert blocks_of(20) == [
        [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13],
        [7, 14],
        [15, 16, 17, 18, 19],
    ]


def test_neighbours_of_a_border_neither_stop_nor_judge():
    shots, validation, test = blocks_of(300)
    assert shots == [*range(105), *range(120, 210)]
    assert validation == [*range(108, 117), *range(213, 222)]
    assert test == [*range(228, 300)]


@pytest.mark.parametrize('count', [*range(3, 60), 99, 100, 101])
def test_every_length_has_frames_for_everything(count):
    shots, validation, test = blocks_of(count)
    assert shots
    assert test
    assert len(validation) >= (1 if count < 10 else 2)
    assert len({*shots, *validation, *test}) == len(shots) + len(validation) + len(test)
    assert max(shots) < max(validation) < min(test)
    assert {*shots, *validation, *test} <= set(range(count))
    assert count >= 100 or len(shots) + len(validation) + len(test) == count


def test_every_scene_is_split_on_its_own():
    blocks = split_blocks(recording(10, 'hall') + recording(10, 'lab'))
    for block, count in ((blocks.shots, 6), (blocks.validation, 2), (blocks.test, 2)):
        assert [frame.scene for frame in block] == ['hall'] * count + ['lab'] * count


def test_three_frames_are_enough_and_two_are_not():
    assert blocks_of(3) == [[0], [1], [2]]
    with pytest.raises(ValueError, match="scene 'room' has 2 frames with depth, at least 3"):
        split_blocks(recording(2))


def test_spread_keeps_both_ends():
    assert spread(list(range(101)), 5) == [0, 25, 50, 75, 100]
    assert spread([1, 2], 5) == [1, 2]


def test_every_view_gets_a_shot_however_rare():
    """A camera that stands still for long and looks elsewhere twice."""
    depths_m = [2.0] * 20 + [6.0] * 2 + [2.0] * 10 + [0.6] * 2 + [2.0] * 6
    frames = [replace(plain_sample(d), stamp_ns=i) for i, d in enumerate(depths_m)]
    shots = pick_shots(frames, 10)
    assert {float(shot.depth_m[0, 0]) for shot in shots} == {np.float32(d) for d in (2, 6, 0.6)}
    order = [shot.stamp_ns for shot in shots]
    assert order == sorted(set(order))
    assert len(order) == 10


def test_a_still_camera_gives_shots_over_all_its_time():
    frames = [replace(plain_sample(2.0), stamp_ns=i) for i in range(40)]
    order = [shot.stamp_ns for shot in pick_shots(frames, 4)]
    assert max(np.diff([0, *order, 39])) <= 14


@dataclass(frozen=True)
class Counting:
    """A frame that says when it is decoded, and forgets what it was."""

    loaded: list[weakref.ref[Sample]]
    alive: list[int]
    scene: str = 'room'
    stamp_ns: int = 0

    def load(self) -> Sample:
        self.alive.append(sum(ref() is not None for ref in self.loaded))
        sample = plain_sample(2.0)
        self.loaded.append(weakref.ref(sample))
        return sample


def test_a_long_recording_is_neither_decoded_nor_kept_whole():
    loaded, alive = [], []
    frames = [Counting(loaded, alive) for _ in range(500)]
    shots = pick_shots(frames, 3)
    assert len(shots) == 3
    assert len(loaded) == 3 * CANDIDATES_PER_SHOT + 3  # looked at, then chosen
    assert max(alive) <= 3


def test_frames_without_depth_are_no_shots():
    blind = plain_sample(np.nan)
    shots = pick_shots([blind, plain_sample(2.0), blind], 3)
    assert [float(shot.depth_m[0, 0]) for shot in shots] == [2.0]
    with pytest.raises(ValueError, match='none of 2 frames knows the depth of 5% of its pixels'):
        pick_shots([blind, blind], 3)
    with pytest.raises(ValueError, match='at least one shot is needed, not 0'):
        pick_shots([plain_sample(2.0)], 0)
