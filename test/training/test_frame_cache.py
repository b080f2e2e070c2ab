"""Frames are decoded once while they fit, memory is bounded, order is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
import pickle
import threading
import time

import numpy as np
import pytest
from training.conftest import plain_sample

from llm_mde_train.frame_cache import cached, load_ahead
from llm_mde_train.samples import Sample

SAMPLE_BYTES = 48 * 64 * (3 + 4)
DECODED: list[int] = []


@dataclass(frozen=True)
class CountedFrame:
    number: int
    scene: str = 'room'
    files: tuple = ()
    delay_s: float = field(default=0.0)

    @property
    def stamp_ns(self) -> int:
        return self.number

    def load(self) -> Sample:
        time.sleep(self.delay_s)
        DECODED.append(self.number)
        return plain_sample(self.number + 1.0)


@pytest.fixture(autouse=True)
def decoded():
    DECODED.clear()
    return DECODED


def test_a_frame_is_decoded_once_and_keeps_its_name(decoded):
    frames = cached(CountedFrame(n) for n in range(3))
    for _ in range(2):
        assert [frame.load().depth_m[0, 0] for frame in frames] == [1.0, 2.0, 3.0]
    assert decoded == [0, 1, 2]
    assert [(f.scene, f.stamp_ns, f.files) for f in frames[:2]] == [
        ('room', 0, ()),
        ('room', 1, ()),
    ]


def test_what_was_used_longest_ago_makes_room(decoded):
    frames = cached((CountedFrame(n) for n in range(3)), max_bytes=2 * SAMPLE_BYTES)
    for number in (0, 1, 0, 2, 0, 1):
        frames[number].load()
    assert decoded == [0, 1, 2, 1]
    assert frames[0].cache._bytes == 2 * SAMPLE_BYTES


def test_more_than_fits_is_loaded_but_not_kept(decoded):
    (frame,) = cached([CountedFrame(0)], max_bytes=10)
    assert frame.load().depth_m[0, 0] == frame.load().depth_m[0, 0] == 1.0
    assert decoded == [0, 0]
    assert frame.cache._bytes == 0


def test_pixels_that_are_shared_cannot_be_changed():
    (frame,) = cached([CountedFrame(0)])
    with pytest.raises(ValueError, match='read-only'):
        frame.load().depth_m[:] = np.nan


def test_samples_are_their_own_frames():
    sample = plain_sample()
    assert cached([sample])[0] is sample


def test_another_process_begins_empty_and_shares_one_cache():
    frames = cached(CountedFrame(n) for n in range(2))
    frames[0].load()
    copies = pickle.loads(pickle.dumps(frames))
    assert copies[0].cache is copies[1].cache
    assert copies[0].cache._bytes == 0
    assert copies[0].cache.max_bytes == frames[0].cache.max_bytes


def test_load_ahead_keeps_the_order_and_a_bounded_distance(decoded):
    frames = [CountedFrame(n, delay_s=0.001 * (n % 3)) for n in range(20)]
    for number, sample in enumerate(load_ahead(frames, threads=4, ahead=5)):
        assert sample.depth_m[0, 0] == number + 1.0
        assert len(decoded) <= number + 1 + 5
    assert sorted(decoded) == list(range(20))


def test_load_ahead_decodes_in_threads_and_raises_what_a_frame_raises():
    class Broken(CountedFrame):
        def load(self) -> Sample:
            raise ValueError(f'broken in {threading.current_thread().name}')

    samples = load_ahead([CountedFrame(0), Broken(1), CountedFrame(2)])
    assert next(samples).depth_m[0, 0] == 1.0
    with pytest.raises(ValueError, match='broken in ThreadPool'):
        next(samples)
