import time

import numpy as np
import pytest

from llm_mde_ros.frame_times import MAX_AGE_S, STAGES, FrameTimes, usual_ms


def times_of(**stage_s: float) -> FrameTimes:
    times = FrameTimes(time.monotonic())
    times.end_all(dict.fromkeys(STAGES, 0.0) | stage_s)
    return times


def test_stages_follow_each_other_from_the_reception_on():
    received_s = time.monotonic() - 2.0
    times = FrameTimes(received_s)
    times.end('wait')
    assert 2.0 <= times.stage_s['wait'] == times.latency_s
    times.end('decode')
    times.end_all({'preprocess': 0.25, 'network': 0.5})
    times.end('outputs')
    assert list(times.stage_s) == ['wait', 'decode', 'preprocess', 'network', 'outputs']
    assert times.stage_s['decode'] + times.stage_s['outputs'] < times.latency_s - 2.0
    assert received_s + times.latency_s <= time.monotonic()


@pytest.mark.parametrize(
    ('now_ns', 'age_s'),
    [
        (5_250_000_000, 0.25),
        (4_999_999_999, np.nan),  # the clock of the stamps runs ahead
        (5_000_000_000 + int(2e9 * MAX_AGE_S), np.nan),  # a bag without its clock
    ],
)
def test_age_is_unknown_when_the_stamps_are_of_another_clock(now_ns: int, age_s: float):
    times = times_of()
    times.set_age(stamp_ns=5_000_000_000, now_ns=now_ns)
    assert times.age_s == pytest.approx(age_s, nan_ok=True)


def test_what_is_usual_of_many_frames():
    frames = [times_of(network=1e-3 * ms) for ms in range(101)]
    usual = usual_ms(frames)
    assert list(usual) == ['latency', 'age', *STAGES]
    np.testing.assert_allclose(usual['network'], [50, 95, 99])
    assert np.isnan(usual['age']).all()
    frames[7].set_age(stamp_ns=0, now_ns=20_000_000)  # one that is known is not lost among others
    np.testing.assert_allclose(usual_ms(frames)['age'], 20.0)


def test_nothing_is_usual_of_no_frame():
    assert all(np.isnan(values).all() for values in usual_ms([]).values())
