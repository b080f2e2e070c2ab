"""The sentences of /diagnostics."""

from dataclasses import replace
import time

from diagnostic_msgs.msg import DiagnosticStatus
import pytest
from sensor_msgs.msg import Image

from llm_mde_ros.diagnostics import NodeSituation, diagnostic_statuses
from llm_mde_ros.frame_counters import FrameCounters, rate_hz
from llm_mde_ros.frame_slot import Frame
from llm_mde_ros.frame_times import STAGES, FrameTimes

GOOD = NodeSituation(
    node='depth',
    state='active',
    image_topic='/image',
    image_publishers=1,
    subscribers={'points': 1, 'depth/image': 0},
    camera_state='from camera_info',
    model={'model': 'tiny'},
)


@pytest.fixture
def counters() -> FrameCounters:
    counters = FrameCounters()
    counters.count_received(Frame(Image(), received_s=time.monotonic()))
    times = FrameTimes(time.monotonic() - 0.02)
    times.end_all(dict.fromkeys(STAGES, 0.002) | {'network': 0.01})
    counters.count_published(times)
    return counters


def statuses(situation: NodeSituation, counters: FrameCounters) -> dict[str, DiagnosticStatus]:
    return {s.name: s for s in diagnostic_statuses(situation, counters)}


def test_all_is_well(counters):
    by_name = statuses(GOOD, counters)
    assert list(by_name) == ['depth: input', 'depth: output', 'depth: model']
    assert {s.level for s in by_name.values()} == {DiagnosticStatus.OK}
    values = {v.key: v.value for v in by_name['depth: output'].values}
    assert 20.0 <= float(values['latency p50 [ms]']) <= float(values['latency p99 [ms]'])
    assert values['network p50, p95, p99 [ms]'] == '10.0, 10.0, 10.0'
    assert values['age p50, p95, p99 [ms]'] == 'nan, nan, nan'
    assert values['subscribers: points'] == '1'


@pytest.mark.parametrize(
    ('change', 'part', 'level', 'sentence'),
    [
        ({'state': 'inactive'}, 'input', DiagnosticStatus.OK, 'inactive'),
        ({'subscribers': {'points': 0}}, 'input', DiagnosticStatus.OK, 'nobody subscribes'),
        ({'image_publishers': 0}, 'input', DiagnosticStatus.WARN, 'Nobody publishes /image'),
        ({'camera_warning': 'Calibrate!'}, 'input', DiagnosticStatus.WARN, 'Calibrate!'),
        ({'configure_error': 'No model.'}, 'model', DiagnosticStatus.ERROR, 'No model.'),
    ],
)
def test_what_is_wrong_is_said(counters, change, part, level, sentence):
    status = statuses(replace(GOOD, **change), counters)[f'depth: {part}']
    assert status.level == level
    assert sentence in status.message


def test_a_silent_camera_is_told():
    counters = FrameCounters()
    assert 'No image on /image yet' in statuses(GOOD, counters)['depth: input'].message
    counters.count_received(Frame(Image(), received_s=time.monotonic() - 10))
    status = statuses(GOOD, counters)['depth: input']
    assert (status.level, status.message) == (
        DiagnosticStatus.WARN,
        'No image on /image for 10.0 s.',
    )


def test_drops_are_told_once_and_counted_for_ever(counters):
    counters.count_dropped('image', 'Broken.')
    assert '1 images dropped: Broken.' in statuses(GOOD, counters)['depth: input'].message
    counters.mark_reported()
    status = statuses(GOOD, counters)['depth: input']
    assert status.level == DiagnosticStatus.OK
    assert ('dropped: image', '1') in [(v.key, v.value) for v in status.values]


def test_publish_errors_are_told_once_and_counted_for_ever(counters):
    counters.publish_errors = 3
    assert statuses(GOOD, counters)['depth: output'].level == DiagnosticStatus.WARN
    counters.mark_reported()
    status = statuses(GOOD, counters)['depth: output']
    assert status.level == DiagnosticStatus.OK
    assert ('publish errors', '3') in [(v.key, v.value) for v in status.values]
    counters.publish_errors = 5
    assert statuses(GOOD, counters)['depth: output'].message.startswith('2 messages')


def test_rate():
    now_s = time.monotonic()
    assert rate_hz([now_s - 60, now_s - 0.3, now_s - 0.2, now_s - 0.1]) == pytest.approx(10.0)
    assert rate_hz([now_s]) == 0.0
