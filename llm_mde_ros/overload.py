"""Whether images come faster than the machine can work on them, and what helps."""

from __future__ import annotations

from statistics import median
import time

from llm_mde_ros.frame_counters import FrameCounters, rate_hz, recent
from llm_mde_ros.frame_times import usual_ms

ENOUGH = 0.9  # of a rate
NO_DEPTH_AFTER_S = 5.0


def stuck_sentence(counters: FrameCounters) -> str:
    """Say that one frame takes long, also for this machine; empty: it does not."""
    since_s = counters.busy_since_s
    if since_s is None:
        return ''
    busy_s = time.monotonic() - since_s
    latencies_s = [times.latency_s for times in tuple(counters.times)]
    usual_s = median(latencies_s) if latencies_s else 0.0
    if busy_s < max(NO_DEPTH_AFTER_S, 2 * usual_s):
        return ''
    return (
        f'No depth for {busy_s:.1f} s: one image is being worked on for so long. The first one of '
        'a camera may be compiled for (set warm_up.width and warm_up.height to its size); else '
        'see what else runs here, take a smaller model, or a GPU.'
    )


def is_overloaded(counters: FrameCounters, *, target_hz: float) -> bool:
    """Tell whether so many images are skipped lately that depth comes less often than it shall."""
    received, skipped = len(recent(counters.received_at_s)), len(recent(counters.skipped_at_s))
    is_measured = bool(counters.times)  # else all images were dropped, or one is in work
    too_slow = is_measured and rate_hz(counters.published_at_s) < ENOUGH * target_hz
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
