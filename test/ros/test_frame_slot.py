"""The newest frame wins; rates follow the stamps."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sensor_msgs.msg import Image

from llm_mde_ros.frame_slot import Frame, FrameSlot, RateLimiter

MS = 1_000_000


def frame(second: int) -> Frame:
    message = Image()
    message.header.stamp.sec = second
    return Frame(message, received_s=0.0)


def test_a_new_frame_replaces_an_unread_one():
    slot = FrameSlot()
    assert [slot.put(frame(n)) for n in (1, 2, 3)] == [False, True, True]
    assert next(iter(slot)).stamp_ns == 3_000_000_000
    assert not slot.put(frame(4))


def test_closing_ends_a_waiting_reader_and_forgets_the_frame():
    slot = FrameSlot()
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(list, slot)
        slot.put(frame(1))
        slot.close()
        assert len(reader.result(5)) <= 1
    slot.put(frame(2))
    assert list(slot) == []


@pytest.mark.parametrize(
    ('max_rate_hz', 'passed'), [(0.0, 30), (30.0, 30), (10.0, 10), (7.0, 7), (1.0, 1)]
)
def test_the_mean_rate_holds_in_spite_of_jitter(max_rate_hz, passed):
    limiter = RateLimiter()
    jitter_ms = (0, 3, -2)
    stamps = [1000 * MS + n * 1000 * MS // 30 + jitter_ms[n % 3] * MS for n in range(30)]
    allowed = [limiter.allows(stamp, max_rate_hz=max_rate_hz) for stamp in stamps]
    assert allowed[0]
    assert abs(sum(allowed) - passed) <= 1 or max_rate_hz == 30.0


def test_after_a_pause_there_is_no_burst():
    limiter = RateLimiter()
    stamps_ms = (0, 5000, 5010, 5020, 5100)
    allowed = [limiter.allows(ms * MS, max_rate_hz=10.0) for ms in stamps_ms]
    assert allowed == [True, True, False, False, True]


def test_a_jump_back_starts_anew():
    limiter = RateLimiter()
    assert limiter.allows(100_000 * MS, max_rate_hz=0.1)
    assert not limiter.allows(100_100 * MS, max_rate_hz=0.1)
    assert limiter.allows(5 * MS, max_rate_hz=0.1)
    assert not limiter.allows(10 * MS, max_rate_hz=0.1)
    assert not limiter.allows(20 * MS, max_rate_hz=5e-324)


@pytest.mark.parametrize('ms', [0, 5000])
def test_stamps_that_stand_still_do_not_hold_frames_back(ms):
    limiter = RateLimiter()
    assert limiter.allows(ms * MS, max_rate_hz=10.0)
    assert not limiter.allows((ms + 50) * MS, max_rate_hz=10.0)
    assert [limiter.allows((ms + 50) * MS, max_rate_hz=10.0) for _ in range(3)] == [True] * 3
    moving_ms = (ms + 80, ms + 140, ms + 160, ms + 260)
    allowed = [limiter.allows(each * MS, max_rate_hz=10.0) for each in moving_ms]
    assert allowed == [False, False, True, True]


def test_a_raised_rate_acts_at_once():
    limiter = RateLimiter()
    assert limiter.allows(0, max_rate_hz=0.1)
    assert not limiter.allows(200 * MS, max_rate_hz=0.1)
    assert limiter.allows(300 * MS, max_rate_hz=10.0)
