"""The sentences of /diagnostics."""

from dataclasses import replace
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, PAGESIZE, mmap
import time

from diagnostic_msgs.msg import DiagnosticStatus
import pytest
from sensor_msgs.msg import Image

from llm_mde_ros.diagnostics import NodeSituation, diagnostic_statuses
from llm_mde_ros.frame_counters import FrameCounters, rate_hz
from llm_mde_ros.frame_error import FrameError, describe, stage
from llm_mde_ros.frame_slot import Frame
from llm_mde_ros.frame_times import STAGES, FrameTimes

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
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
    publish(counters)
    return counters


def publish(counters: FrameCounters) -> None:
    times = FrameTimes(time.monotonic() - 0.02)
    times.end_all(dict.fromkeys(STAGES, 0.002) | {'network': 0.01})
    counters.count_published(times)


def statuses(situation: NodeSituation, counters: FrameCounters) -> dict[str, DiagnosticStatus]:
    return {s.name: s for s in diagnostic_statuses(situation, counters)}


def test_all_is_well(counters):
    by_name = statuses(GOOD, counters)
    assert list(by_name) == ['depth: input', 'depth: output', 'depth: model']
    assert {s.level for s in by_name.values()} == {OK}
    values = {v.key: v.value for v in by_name['depth: output'].values}
    assert 20.0 <= float(values['latency p50 [ms]']) <= float(values['latency p99 [ms]'])
    assert values['network p50, p95, p99 [ms]'] == '10.0, 10.0, 10.0'
    assert values['age p50, p95, p99 [ms]'] == 'nan, nan, nan'
    assert values['subscribers: points'] == '1'


@pytest.mark.parametrize(
    ('change', 'part', 'level', 'sentence'),
    [
        ({'state': 'inactive'}, 'input', OK, 'inactive'),
        ({'state': 'inactive', 'subscribers': {}}, 'output', OK, 'Publishes nothing'),
        ({'subscribers': {'points': 0}}, 'input', OK, 'nobody subscribes'),
        ({'subscribers': {'points': 0}}, 'output', WARN, 'Nobody listens: subscribe'),
        ({'image_publishers': 0}, 'input', ERROR, 'Nobody publishes /image'),
        ({'input_problem': 'Best effort!'}, 'input', WARN, 'Best effort!'),
        ({'output_problem': 'Latched!'}, 'output', WARN, 'Latched!'),
        ({'camera_warning': 'Calibrate!'}, 'input', WARN, 'Calibrate!'),
        ({'configure_error': 'No model.'}, 'model', ERROR, 'No model.'),
        ({'info_problem': 'Other type!'}, 'input', WARN, 'Other type!'),
        ({'input_problem': 'A', 'info_problem': 'B'}, 'input', WARN, 'A'),
        ({'model_warnings': ('A.', ''), 'model_loading': 'B.'}, 'model', WARN, 'A. B.'),
        ({'model_loading': 'New.'}, 'model', OK, 'New.'),
    ],
)
def test_what_is_wrong_is_said(counters, change, part, level, sentence):
    status = statuses(replace(GOOD, **change), counters)[f'depth: {part}']
    assert status.level == level
    assert sentence in status.message


def test_images_without_any_depth_are_told(counters):
    for _ in range(4):
        counters.count_seen(anything=False)
    assert statuses(GOOD, counters)['depth: output'].level == OK
    counters.count_seen(anything=False)
    status = statuses(GOOD, counters)['depth: output']
    assert (status.level, status.message[:38]) == (WARN, 'No depth at all in the last 5 images: ')
    counters.count_seen(anything=True)
    assert statuses(GOOD, counters)['depth: output'].level == OK


def test_a_silent_camera_is_told_after_a_while():
    counters = FrameCounters()
    just_now, long_ago = time.monotonic() - 1, time.monotonic() - 10
    counters.count_received(Frame(Image(), received_s=long_ago))
    listened_anew = replace(GOOD, receives_since_s=just_now)
    assert statuses(listened_anew, counters)['depth: input'].level == OK
    silent = replace(GOOD, receives_since_s=long_ago - 90)
    status = statuses(silent, counters)['depth: input']
    assert (status.level, status.message[:33]) == (ERROR, 'No image on /image for 10.0 s: is')
    assert 'for 100.0 s' in statuses(silent, FrameCounters())['depth: input'].message


def test_a_problem_of_the_input_is_an_error_while_no_image_comes():
    silent = replace(GOOD, input_problem='Best effort!', receives_since_s=time.monotonic() - 10)
    status = statuses(silent, FrameCounters())['depth: input']
    assert (status.level, status.message) == (ERROR, 'Best effort!')


def test_a_silent_camera_is_told_before_a_problem_of_its_camera_info():
    silent = replace(GOOD, info_problem='Other type!', receives_since_s=time.monotonic() - 10)
    status = statuses(silent, FrameCounters())['depth: input']
    assert (status.level, status.message[:22]) == (ERROR, 'No image on /image for')


@pytest.mark.parametrize(
    ('busy_s', 'usual_s', 'level'), [(4.0, 0.1, OK), (6.0, 0.1, ERROR), (6.0, 4.0, OK)]
)
def test_an_image_that_takes_long_is_an_error(counters, busy_s, usual_s, level):
    counters.times[0]._ended_s = counters.times[0]._received_s + usual_s
    counters.busy_since_s = time.monotonic() - busy_s
    status = statuses(GOOD, counters)['depth: output']
    assert status.level == level
    assert status.message.startswith('No depth for 6.0 s: ') == (level == ERROR)
    counters.times.clear()
    assert statuses(GOOD, counters)['depth: output'].level == (ERROR if busy_s > 5 else OK)


def test_without_a_frame_that_was_measured_there_is_no_overload():
    counters = stream(received_hz=20, every=100)
    counters.times.clear()
    counters.published_at_s.clear()
    status = statuses(GOOD, counters)['depth: output']
    assert (status.level, 'nan' in status.message) == (OK, False)


def stream(*, received_hz: float, every: int, outputs_s: float = 0.0) -> FrameCounters:
    """Return the counters after five seconds in which one image of `every` was published."""
    counters, now_s = FrameCounters(), time.monotonic()
    for n in range(round(5 * received_hz) - 1):
        at_s = now_s - n / received_hz
        counters.received_at_s.appendleft(at_s)
        if n % every:
            counters.skipped_at_s.appendleft(at_s)
            continue
        counters.published_at_s.appendleft(at_s)
        times = FrameTimes(at_s)
        times.end_all(dict.fromkeys(STAGES, 0.0) | {'network': 0.1, 'outputs': outputs_s})
        counters.times.append(times)
    return counters


@pytest.mark.parametrize(
    ('every', 'outputs_s', 'change', 'level', 'sentence'),
    [
        (1, 0.0, {}, OK, ''),
        (
            2,
            0.0,
            {},
            WARN,
            'Overload: depth at 10.0 Hz of images at 20.0 Hz; the network takes 100',
        ),
        (2, 0.2, {}, WARN, 'raise points.stride'),
        (2, 0.0, {'target_rate_hz': 10.0}, OK, ''),
        (2, 0.0, {'target_rate_hz': 15.0}, WARN, 'target_rate_hz'),
        (2, 0.0, {'max_rate_hz': 10.0}, OK, ''),
    ],
)
def test_overload_is_told_with_what_helps(every, outputs_s, change, level, sentence):
    counters = stream(received_hz=20, every=every, outputs_s=outputs_s)
    status = statuses(replace(GOOD, **change), counters)['depth: output']
    assert status.level == level
    assert sentence in status.message


def test_what_nobody_wants_is_no_overload():
    counters = stream(received_hz=20, every=2)
    counters.skipped_at_s.clear()
    assert statuses(GOOD, counters)['depth: output'].level == OK


def test_a_camera_below_the_target_is_told():
    counters = stream(received_hz=10, every=1)
    assert statuses(replace(GOOD, target_rate_hz=10.0), counters)['depth: input'].level == OK
    status = statuses(replace(GOOD, target_rate_hz=15.0), counters)['depth: input']
    assert status.level == WARN
    assert 'Images come at 10.0 Hz, target_rate_hz is 15' in status.message


def test_the_target_is_told():
    counters = stream(received_hz=20, every=1)
    for change, target in (({}, '20.00'), ({'target_rate_hz': 8.0}, '8.00')):
        status = statuses(replace(GOOD, **change), counters)['depth: output']
        assert {v.key: v.value for v in status.values}['target rate [Hz]'] == target


def test_stamps_that_stand_still_are_told_until_they_move_on():
    counters, image = FrameCounters(), Image()
    told = []
    for second in (0, 0, 0, 7, 7, 7, 7, 7, 8):
        image.header.stamp.sec = second
        counters.count_received(Frame(image, received_s=time.monotonic()))
        status = statuses(GOOD, counters)['depth: input']
        told.append(status.level)
        if status.level == WARN:
            assert status.message.startswith('The stamps of /image stand still, so that nothing')
    assert told == [OK, OK, WARN, OK, OK, OK, WARN, WARN, OK]


def test_memory_of_the_process_is_told(counters):
    def held_mb() -> int:
        values = statuses(GOOD, counters)['depth: model'].values
        return int({v.key: v.value for v in values}['memory [MB]'])

    before = held_mb()
    # Pages of its own: memory that this process has freed would not make it larger.
    with mmap(-1, 200_000_000, flags=MAP_PRIVATE | MAP_ANONYMOUS) as ballast:
        for page in range(0, 200_000_000, PAGESIZE):
            ballast[page] = 1
        assert 190 <= held_mb() - before <= 210


def test_drops_among_good_images_are_told_once_and_counted_for_ever(counters):
    counters.count_dropped('image', 'Broken.')
    status = statuses(GOOD, counters)['depth: input']
    assert (status.level, status.message) == (WARN, '1 images dropped: Broken.')
    publish(counters)
    counters.mark_reported()
    status = statuses(GOOD, counters)['depth: input']
    assert status.level == OK
    assert ('dropped: image', '1') in [(v.key, v.value) for v in status.values]


@pytest.mark.parametrize('fault', [ValueError, RuntimeError, MemoryError])
def test_a_message_with_a_field_of_megabytes_is_told_in_short(counters, fault):
    with pytest.raises(FrameError) as dropped, stage('image'):
        raise fault(f'cannot take {"x" * 2_000_000}; expected mono8 or rgb8')
    counters.count_dropped(dropped.value.stage, str(dropped.value))
    said = statuses(GOOD, counters)['depth: input'].message
    assert len(said) < 330
    assert said.startswith('1 images dropped: cannot take xxx')
    assert 'xxx…xxx' in said
    assert said.endswith('; expected mono8 or rgb8')


def test_a_sentence_of_the_longest_length_is_told_whole():
    for length in (299, 300):
        assert describe(ValueError('x' * length)) == 'x' * length
    assert len(describe(ValueError('x' * 301))) == 300
    assert len(describe(ValueError('\udc80' * 299))) == 300  # an escape has six characters


def test_drops_alone_are_an_error_until_a_good_image_comes(counters):
    counters.mark_reported()
    for _ in range(3):
        counters.count_dropped('image', 'Broken.')
    for _ in range(2):
        status = statuses(GOOD, counters)['depth: input']
        assert (status.level, status.message) == (ERROR, '3 images dropped in a row: Broken.')
        counters.mark_reported()
    publish(counters)
    assert statuses(GOOD, counters)['depth: input'].level == OK


def test_publish_errors_are_told_once_and_counted_for_ever(counters):
    counters.publish_errors = 3
    assert statuses(GOOD, counters)['depth: output'].level == WARN
    counters.mark_reported()
    status = statuses(GOOD, counters)['depth: output']
    assert status.level == OK
    assert ('publish errors', '3') in [(v.key, v.value) for v in status.values]
    counters.publish_errors = 5
    assert statuses(GOOD, counters)['depth: output'].message.startswith('2 messages')


def test_rate():
    now_s = time.monotonic()
    assert rate_hz([now_s - 60, now_s - 0.3, now_s - 0.2, now_s - 0.1]) == pytest.approx(10.0)
    assert rate_hz([now_s]) == 0.0


def test_a_lost_gpu_is_no_fault_of_one_frame() -> None:
    fault = RuntimeError('CUDA error: an illegal memory access was encountered')
    with pytest.raises(RuntimeError) as caught, stage('inference'):
        raise fault
    assert caught.value is fault  # it ends the worker, and so the node
    with pytest.raises(FrameError), stage('inference'):
        raise RuntimeError('CUDA error: out of memory')
