"""Whether images come faster than the machine can work on them, and what helps."""

from __future__ import annotations

from llm_mde_ros.frame_counters import FrameCounters, rate_hz, recent
from llm_mde_ros.frame_times import usual_ms

ENOUGH = 0.9  # of a rate


def is_overloaded(counters: FrameCounters, *, target_hz: float) -> bool:
    """Tell whether so many images are skipped lately that depth comes less often than it shall."""
    received, skipped = len(recent(counters.received_at_s)), len(recent(counters.skipped_at_s))
    too_slow = rate_hz(counters.published_at_s) < ENOUGH * target_hz
    return too_slow and skipped > (1 - ENOUGH) * received


def overload_sentence(counters: FrameCounters) -> str:
    """Say how much is lost, and what helps most."""
    median_ms = {name: values[0] for name, values in usual_ms(counters.times).items()}
    making_ms = median_ms['outputs'] + median_ms['publish']
    if making_ms > median_ms['network']:
        advice = (
            f'the outputs take {making_ms:.0f} ms: raise points.stride, set points.max_rate_hz, '
            'or subscribe to less'
        )
    else:
        advice = (
            f'the network takes {median_ms["network"]:.0f} ms: take a smaller or an exported '
            'model, or a GPU'
        )
    return (
        f'Overload: depth at {rate_hz(counters.published_at_s):.1f} Hz of images at '
        f'{rate_hz(counters.received_at_s):.1f} Hz; {advice}. If that is often enough, say so '
        'in max_rate_hz or target_rate_hz.'
    )
