"""What /diagnostics says, as diagnostic_updater would: values, a level and a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
import time

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from llm_mde_ros.frame_counters import FrameCounters, rate_hz
from llm_mde_ros.frame_times import PERCENTILES, usual_ms
from llm_mde_ros.live_accuracy import LiveAccuracy

NO_IMAGE_AFTER_S = 2.0


@dataclass(frozen=True)
class NodeSituation:
    """All that the sentences depend on besides the counters."""

    node: str  # with its namespace
    state: str  # of the lifecycle
    configure_error: str = ''
    image_topic: str = ''
    image_publishers: int = 0
    subscribers: Mapping[str, int] = field(default_factory=dict)  # by output
    camera_state: str = ''
    camera_warning: str = ''
    model: Mapping[str, object] = field(default_factory=dict)
    accuracy: LiveAccuracy | None = None  # while there is a reference.topic


def diagnostic_statuses(
    situation: NodeSituation, counters: FrameCounters
) -> list[DiagnosticStatus]:
    """Return the statuses input, output, model and, with a reference, accuracy."""
    statuses = [
        _status(
            f'{situation.node}: input',
            input_verdict(situation, counters),
            _input_values(situation, counters),
        ),
        _status(
            f'{situation.node}: output',
            output_verdict(situation, counters),
            _output_values(situation, counters),
        ),
        _status(f'{situation.node}: model', model_verdict(situation), situation.model),
    ]
    accuracy = situation.accuracy
    if accuracy is not None:
        name = f'{situation.node}: accuracy'
        statuses.append(_status(name, accuracy.verdict(), accuracy.values()))
    return statuses


def input_verdict(situation: NodeSituation, counters: FrameCounters) -> tuple[bytes, str]:
    """Return level and sentence; the first thing that stops images comes first."""
    if situation.state != 'active':
        return DiagnosticStatus.OK, f'The node is {situation.state}.'
    if not any(situation.subscribers.values()):
        return DiagnosticStatus.OK, 'Idle: nobody subscribes to an output.'
    if situation.image_publishers == 0:
        return (
            DiagnosticStatus.WARN,
            f'Nobody publishes {situation.image_topic}: start the camera, remap image, or set '
            'image_transport.',
        )
    age_s = image_age_s(counters)
    if age_s is None or age_s > NO_IMAGE_AFTER_S:
        since = 'yet' if age_s is None else f'for {age_s:.1f} s'
        return DiagnosticStatus.WARN, f'No image on {situation.image_topic} {since}.'
    dropped = counters.dropped_total - counters.dropped_before
    if dropped:
        return DiagnosticStatus.WARN, f'{dropped} images dropped: {counters.last_drop}'
    if situation.camera_warning:
        return DiagnosticStatus.WARN, situation.camera_warning
    return DiagnosticStatus.OK, 'Images arrive.'


def output_verdict(situation: NodeSituation, counters: FrameCounters) -> tuple[bytes, str]:
    """Return level and sentence of what is sent."""
    errors = counters.publish_errors - counters.publish_errors_before
    if errors:
        return (
            DiagnosticStatus.WARN,
            f'{errors} messages could not be published: a subscriber or the network is too slow.',
        )
    listened = [topic for topic, count in situation.subscribers.items() if count]
    return DiagnosticStatus.OK, f'Publishes {", ".join(listened) or "nothing"}.'


def model_verdict(situation: NodeSituation) -> tuple[bytes, str]:
    """Return level and sentence of the model."""
    if situation.configure_error:
        return DiagnosticStatus.ERROR, situation.configure_error
    return DiagnosticStatus.OK, 'Loaded.' if situation.model else 'Not loaded.'


def image_age_s(counters: FrameCounters) -> float | None:
    """Seconds since the last image arrived; None before the first."""
    times_s = tuple(counters.received_at_s)
    return time.monotonic() - times_s[-1] if times_s else None


def _input_values(situation: NodeSituation, counters: FrameCounters) -> dict[str, object]:
    age_s = image_age_s(counters)
    return {
        'state': situation.state,
        'image topic': situation.image_topic,
        'publishers': situation.image_publishers,
        'rate [Hz]': f'{rate_hz(counters.received_at_s):.2f}',
        'age of last image [s]': 'none' if age_s is None else f'{age_s:.2f}',
        'camera': situation.camera_state,
        'received': counters.received,
        'rate limited': counters.rate_limited,
        'skipped': counters.skipped,
        'unwanted': counters.unwanted,
        'time jumps': counters.time_jumps,
        'dropped': counters.dropped_total,
        **{f'dropped: {reason}': n for reason, n in sorted(counters.dropped.copy().items())},
    }


def _output_values(situation: NodeSituation, counters: FrameCounters) -> dict[str, object]:
    return {
        'rate [Hz]': f'{rate_hz(counters.published_at_s):.2f}',
        **_latency_values(counters),
        'processed': counters.processed,
        'published': counters.published,
        'publish errors': counters.publish_errors,
        **{f'subscribers: {topic}': n for topic, n in situation.subscribers.items()},
        **{f'published: {topic}': n for topic, n in sorted(counters.published_of.copy().items())},
    }


def _latency_values(counters: FrameCounters) -> dict[str, str]:
    """Tell the latency since reception, the age since the stamp, and what the stages take."""
    ms = usual_ms(counters.times)
    latency = zip(PERCENTILES, ms.pop('latency'), strict=True)
    return {
        **{f'latency p{percentile} [ms]': f'{value:.1f}' for percentile, value in latency},
        **{
            f'{name} p50, p95, p99 [ms]': ', '.join(f'{value:.1f}' for value in values)
            for name, values in ms.items()
        },
    }


def _status(
    name: str, verdict: tuple[bytes, str], values: Mapping[str, object]
) -> DiagnosticStatus:
    level, message = verdict
    return DiagnosticStatus(
        name=name,
        hardware_id='llm_mde_ros',
        level=level,
        message=message,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
