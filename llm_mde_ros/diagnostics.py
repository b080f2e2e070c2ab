"""What /diagnostics says, as diagnostic_updater would: values, a level and a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import time

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from llm_mde_ros.frame_counters import FrameCounters, rate_hz, recent
from llm_mde_ros.frame_times import PERCENTILES, usual_ms
from llm_mde_ros.live_accuracy import LiveAccuracy
from llm_mde_ros.overload import ENOUGH, is_overloaded, overload_sentence, stuck_sentence
from llm_mde_ros.process_memory import memory_mb

NO_IMAGE_AFTER_S = 2.0
STANDS_STILL = 3  # repeats of a stamp; fewer may be images that came twice
BLIND = 5  # images without any depth; fewer may be of a hand before the lens


@dataclass(frozen=True)
class NodeSituation:
    """All that the sentences depend on besides the counters."""

    node: str  # with its namespace
    state: str  # of the lifecycle
    enabled: bool = True  # False: switched off by ~/enable
    configure_error: str = ''
    image_topic: str = ''
    image_publishers: int = 0
    receives_since_s: float | None = None  # time.monotonic; None: images are not received
    input_problem: str = ''  # why images of a publisher cannot come
    info_problem: str = ''  # the same of camera_info
    output_problem: str = ''  # why a subscriber gets nothing
    target_rate_hz: float = 0.0  # of the parameters
    max_rate_hz: float = 0.0
    subscribers: Mapping[str, int] = field(default_factory=dict)  # by output
    camera_state: str = ''
    camera_warning: str = ''
    model: Mapping[str, object] = field(default_factory=dict)
    model_error: str = ''  # why the last image got no depth
    model_warnings: Sequence[str] = ()  # what to know about what serves
    model_loading: str = ''  # what will serve next
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
        _status(f'{situation.node}: model', model_verdict(situation), _model_values(situation)),
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
    if not situation.enabled:
        return DiagnosticStatus.OK, 'Switched off by ~/enable.'
    if not any(situation.subscribers.values()):
        return DiagnosticStatus.OK, 'Idle: nobody subscribes to an output.'
    if situation.image_publishers == 0:
        return (
            DiagnosticStatus.ERROR,
            f'Nobody publishes {situation.image_topic}: start the camera, remap image, or set '
            'image_transport.',
        )
    silent_s = _silent_s(situation, counters)
    is_silent = silent_s > NO_IMAGE_AFTER_S
    if situation.input_problem:
        level = DiagnosticStatus.ERROR if is_silent else DiagnosticStatus.WARN
        return level, situation.input_problem
    if is_silent:
        return (
            DiagnosticStatus.ERROR,
            f'No image on {situation.image_topic} for {silent_s:.1f} s: is the camera alive, and '
            'does the link carry its images?',
        )
    if situation.info_problem:
        return DiagnosticStatus.WARN, situation.info_problem
    is_any_good = counters.published > counters.published_before
    if counters.dropped_in_a_row and not is_any_good:
        in_a_row = counters.dropped_in_a_row
        return DiagnosticStatus.ERROR, f'{in_a_row} images dropped in a row: {counters.last_drop}'
    dropped = counters.dropped_total - counters.dropped_before
    if dropped:
        return DiagnosticStatus.WARN, f'{dropped} images dropped: {counters.last_drop}'
    if situation.camera_warning:
        return DiagnosticStatus.WARN, situation.camera_warning
    if counters.repeats >= STANDS_STILL:
        return (
            DiagnosticStatus.WARN,
            f'The stamps of {situation.image_topic} stand still, so that nothing limits rates, '
            'smooths or corrects: let the driver stamp each image, or start its clock.',
        )
    received_hz, target_hz = rate_hz(counters.received_at_s), situation.target_rate_hz
    if len(recent(counters.received_at_s)) > 1 and received_hz < ENOUGH * target_hz:
        return (
            DiagnosticStatus.WARN,
            f'Images come at {received_hz:.1f} Hz, target_rate_hz is {target_hz:g}: raise the '
            'rate of the camera, or see what its link loses.',
        )
    return DiagnosticStatus.OK, 'Images arrive.'


def output_verdict(situation: NodeSituation, counters: FrameCounters) -> tuple[bytes, str]:
    """Return level and sentence of what is sent."""
    errors = counters.publish_errors - counters.publish_errors_before
    if errors:
        return (
            DiagnosticStatus.WARN,
            f'{errors} messages could not be published: a subscriber or the network is too slow.',
        )
    if situation.output_problem:
        return DiagnosticStatus.WARN, situation.output_problem
    if situation.state != 'active' or not situation.enabled:
        return DiagnosticStatus.OK, 'Publishes nothing.'
    listened = [topic for topic, count in situation.subscribers.items() if count]
    if not listened:
        return (
            DiagnosticStatus.WARN,
            'Nobody listens: subscribe to an output, see that names and namespaces are the same, '
            'or deactivate the node.',
        )
    stuck = stuck_sentence(counters)
    if stuck:
        return DiagnosticStatus.ERROR, stuck
    if counters.blind_in_a_row >= BLIND:
        return (
            DiagnosticStatus.WARN,
            f'No depth at all in the last {counters.blind_in_a_row} images: see whether the lens '
            'is covered and what depth range and filters leave, or load another model.',
        )
    if is_overloaded(counters, target_hz=_target_hz(situation, counters)):
        return DiagnosticStatus.WARN, overload_sentence(counters)
    return DiagnosticStatus.OK, f'Publishes {", ".join(listened)}.'


def model_verdict(situation: NodeSituation) -> tuple[bytes, str]:
    """Return level and sentence of the model."""
    if situation.configure_error:
        return DiagnosticStatus.ERROR, situation.configure_error
    if situation.model_error:
        return DiagnosticStatus.ERROR, situation.model_error
    warnings = list(filter(None, situation.model_warnings))
    level = DiagnosticStatus.WARN if warnings else DiagnosticStatus.OK
    state = 'Loaded.' if situation.model else 'Not loaded.'
    return level, ' '.join(filter(None, [*warnings, situation.model_loading])) or state


def image_age_s(counters: FrameCounters) -> float | None:
    """Seconds since the last image arrived; None before the first."""
    times_s = tuple(counters.received_at_s)
    return time.monotonic() - times_s[-1] if times_s else None


def _silent_s(situation: NodeSituation, counters: FrameCounters) -> float:
    """Seconds without an image while there was a subscription; 0 without one."""
    since_s = situation.receives_since_s
    if since_s is None:
        return 0.0
    return time.monotonic() - max([since_s, *tuple(counters.received_at_s)[-1:]])


def _target_hz(situation: NodeSituation, counters: FrameCounters) -> float:
    """Return how often depth shall come: as asked for, or as images come."""
    target_hz = situation.target_rate_hz or rate_hz(counters.received_at_s)
    return min(target_hz, situation.max_rate_hz or target_hz)


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
        'target rate [Hz]': f'{_target_hz(situation, counters):.2f}',
        **_latency_values(counters),
        'processed': counters.processed,
        'published': counters.published,
        'publish errors': counters.publish_errors,
        **{f'subscribers: {topic}': n for topic, n in situation.subscribers.items()},
        **{f'published: {topic}': n for topic, n in sorted(counters.published_of.copy().items())},
    }


def _model_values(situation: NodeSituation) -> dict[str, object]:
    return {**situation.model, **memory_mb()}


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
