"""The worker with an estimator that fails on demand: what a real one cannot show."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from threading import Event
import time
from typing import Any
from unittest.mock import Mock  # raises what libraries do when memory is out, at a chosen place

from builtin_interfaces.msg import Time
import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
import torch

from llm_mde_core.estimator import DepthPrediction
from llm_mde_ros import frame_worker
from llm_mde_ros.conversions import depth_to_image
from llm_mde_ros.extrinsics import FrameTransforms
from llm_mde_ros.frame_counters import FrameCounters
from llm_mde_ros.frame_slot import Frame
from llm_mde_ros.frame_times import STAGES
from llm_mde_ros.frame_worker import FrameWorker
from llm_mde_ros.live_accuracy import LiveAccuracy
from llm_mde_ros.parameters import DepthNodeParameters
from llm_mde_ros.stats import DepthStats


class Estimator:
    """Sees a wall at 2 m, or raises the next of its errors."""

    def __init__(self) -> None:
        self.errors: deque[Exception] = deque()
        self.depth_m = 2.0
        self.made_by = 'fake', ''
        self.read_prompt = lambda: ('near', 'A wall.')

    def infer(self, rgb: np.ndarray, camera: Any) -> DepthPrediction:
        if self.errors:
            raise self.errors.popleft()
        depth = torch.full(rgb.shape[:2], self.depth_m)
        stages_s = dict.fromkeys(('preprocess', 'network', 'postprocess'), 0.001)
        return DepthPrediction(
            depth,
            lambda: torch.ones_like(depth),
            stages_s,
            read_prompt=self.read_prompt,
        )


class Publishers:
    """Keeps what is published; everything on a topic in `failing` is lost."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.listened = {'depth/image': 1, 'points': 0}
        self.failing: set[str] = set()

    def subscribers(self) -> dict[str, int]:
        return self.listened

    def publish(self, messages: dict[str, Any]) -> list[str]:
        self.sent += messages.items()
        return [topic for topic in messages if topic in self.failing]


class Bench:
    """A worker and its surroundings."""

    def __init__(self) -> None:
        self.estimator, self.publishers, self.counters = Estimator(), Publishers(), FrameCounters()
        self.parameters = DepthNodeParameters(camera_info_timeout_s=0.0)
        self.parameter_reads = 0
        self.accuracy = LiveAccuracy(FrameTransforms(None))
        self.warnings: list[tuple[str, str]] = []
        self.worker = FrameWorker(
            estimator=self.estimator,
            publishers=self.publishers,
            counters=self.counters,
            accuracy=self.accuracy,
            parameters=self._read_parameters,
            now_ns=lambda: 7_500_000_000,
            warn=lambda kind, sentence: self.warnings.append((kind, sentence)),
        )

    def _read_parameters(self) -> DepthNodeParameters:
        self.parameter_reads += 1
        return self.parameters

    def hand_over(self, second: int, image: Image | CompressedImage | None = None) -> None:
        """Hand over a frame."""
        image = image or Image(height=4, width=6, encoding='mono8', step=6, data=bytes(24))
        image.header.stamp.sec = second
        self.worker.slot.put(Frame(image, received_s=time.monotonic()))

    def put(self, second: int = 1, image: Image | CompressedImage | None = None) -> None:
        """Hand over a frame and wait until the worker is done with it."""
        before = self.done
        self.hand_over(second, image)
        self.wait_for(before + 1)

    @property
    def done(self) -> int:
        """Frames that the worker is done with."""
        return self.counters.published + self.counters.dropped_total + self.counters.unwanted

    def wait_for(self, done: int) -> None:
        """Wait until the worker is done with so many frames."""
        end_s = time.monotonic() + 10
        while self.done < done:
            self.worker.check()
            assert time.monotonic() < end_s
            time.sleep(0.001)


def calibration(*, fx: float, second: int = 0) -> CameraInfo:
    """Return the camera_info of the bench's images."""
    info = CameraInfo(width=6, height=4, k=[fx, 0, 2.5, 0, fx, 1.5, 0, 0, 1.0])
    info.header.stamp.sec = second
    return info


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.worker.slot.close()


def test_depth_keeps_the_stamp_of_its_image(bench):
    bench.put(second=7)
    ((topic, message),) = bench.publishers.sent
    assert (topic, message.header.stamp.sec) == ('depth/image', 7)
    assert list(np.frombuffer(message.data, np.float32)) == [2.0] * 24


def test_an_image_that_waited_has_the_camera_info_of_its_own_time(bench):
    bench.publishers.listened = {'depth/camera_info': 1}
    infer, cameras = bench.estimator.infer, []

    def wait_meanwhile(rgb: np.ndarray, camera: Any) -> DepthPrediction:
        cameras.append(camera)
        if len(cameras) == 1:
            bench.hand_over(second=2)
            for second, fx in ((2, 6.0), (3, 12.0)):
                bench.worker.infos.add(calibration(fx=fx, second=second))
        return infer(rgb, camera)

    bench.estimator.infer = wait_meanwhile
    bench.worker.infos.add(calibration(fx=5.0, second=1))
    bench.hand_over(second=1)
    bench.wait_for(2)
    assert [camera.fx for camera in cameras] == [5.0, 6.0]
    sent = [(info.header.stamp.sec, info.k[0]) for _, info in bench.publishers.sent]
    assert sent == [(1, 5.0), (2, 6.0)]


def test_depth_is_filtered_over_time_as_the_parameters_say(bench):
    bench.parameters = DepthNodeParameters(
        camera_info_timeout_s=0.0, filters_temporal_enable=True, filters_temporal_time_s=1.0
    )
    followed = 2 * 1.1 ** (1 - np.exp(-1))  # after one second
    for second, (depth_m, published_m) in enumerate([(2.0, 2.0), (2.2, followed), (4.0, 4.0)]):
        bench.estimator.depth_m = depth_m
        bench.put(second=second + 1)
        message = bench.publishers.sent[-1][1]
        np.testing.assert_allclose(np.frombuffer(message.data, np.float32), published_m, rtol=1e-5)
    bench.parameters = DepthNodeParameters(camera_info_timeout_s=0.0)
    bench.estimator.depth_m = 4.1
    bench.put(second=4)
    message = bench.publishers.sent[-1][1]
    assert set(np.frombuffer(message.data, np.float32)) == {np.float32(4.1)}


def test_frames_that_nothing_is_seen_in_or_left_of_are_counted(bench):
    for second, (depth_m, blind) in enumerate([(2.0, 0), (np.nan, 1), (50.0, 2), (2.0, 0)]):
        bench.parameters = replace(bench.parameters, depth_max_m=10.0)
        bench.estimator.depth_m = depth_m
        bench.put(second=second + 1)
        assert bench.counters.blind_in_a_row == blind


def test_a_frame_is_made_with_the_parameters_of_one_moment(bench):
    """Others may be set while it is worked on."""
    bench.publishers.listened = {'depth/image': 1, 'depth/preview': 1, 'points': 1}
    bench.put()
    assert len(bench.publishers.sent) == 3
    assert bench.parameter_reads == 1


def test_the_times_of_a_frame_are_told(bench):
    bench.put(second=7)
    (times,) = bench.counters.times
    assert tuple(times.stage_s) == STAGES
    assert times.stage_s['network'] == 0.001  # as the estimator says
    assert 0 < times.stage_s['wait'] < times.latency_s
    assert times.age_s == 0.5


FAULTS = {
    'CUDA out of memory': RuntimeError('CUDA out of memory'),
    'too small': ValueError('too small'),
    'out of memory': MemoryError(),
    'Unable to allocate 3 GiB': MemoryError('Unable to allocate 3 GiB'),
    'OpenCV: error: (-215:Assertion failed)': cv2.error('OpenCV: error:\n(-215:Assertion failed)'),
}


@pytest.mark.parametrize(('words', 'error'), FAULTS.items())
def test_a_failing_inference_drops_one_frame(bench, words, error):
    bench.estimator.errors.append(error)
    bench.put()
    assert bench.counters.dropped == {'inference': 1}
    assert ('inference', f'Image dropped (inference): {words}') in bench.warnings
    bench.put()
    assert bench.counters.published == 1


@pytest.mark.parametrize(
    ('stage', 'where'),
    [
        ('image', 'llm_mde_ros.frame_worker.image_to_rgb'),
        ('camera_info', 'llm_mde_ros.camera_source.camera_from_info'),
        ('outputs', 'llm_mde_ros.frame_worker.make_outputs'),
        ('outputs', 'llm_mde_ros.live_accuracy.LiveAccuracy.correct'),
    ],
)
@pytest.mark.parametrize('error', [MemoryError(), cv2.error('out of memory')])
def test_a_failure_in_any_stage_drops_one_frame(bench, monkeypatch, stage, where, error):
    with monkeypatch.context() as patch:
        patch.setattr(where, Mock(side_effect=error))
        bench.worker.infos.add(calibration(fx=5.0))
        bench.put()
    assert bench.counters.dropped == {stage: 1}
    assert (stage, f'Image dropped ({stage}): out of memory') in bench.warnings
    bench.put()
    assert bench.counters.published == 1


@pytest.mark.skipif(DepthStats is None, reason='llm_mde_msgs is not built')
@pytest.mark.parametrize(('words', 'error'), FAULTS.items())
def test_stats_that_cannot_be_made_cost_the_frame_nothing_else(bench, words, error):
    bench.publishers.listened = {'depth/image': 1, 'stats': 1}
    bench.estimator.read_prompt = Mock(side_effect=[error, ('near', 'A wall.')])
    bench.put()
    bench.put(second=2)
    bench.worker.stop()
    assert [topic for topic, _ in bench.publishers.sent] == ['depth/image'] * 2 + ['stats']
    assert (bench.counters.published, bench.counters.dropped) == (2, {})
    assert ('stats', f'No stats of this image: {words}') in bench.warnings


def test_accuracy_is_that_of_the_depth_that_is_published(bench):
    bench.parameters = DepthNodeParameters(
        camera_info_timeout_s=0.0,
        filters_temporal_enable=True,
        filters_temporal_time_s=1.0,
        reference_topic='/depth',
        reference_extrinsics='0 0 0 0 0 0',
    )
    wall = np.full((4, 6), 2.0, np.float32)
    for second, depth_m in enumerate((2.0, 2.2), start=1):
        stamped = Header(stamp=Time(sec=second))
        bench.accuracy.add(depth_to_image(wall, stamped))
        bench.estimator.depth_m = depth_m
        bench.put(second)
    bench.worker.stop()
    published_m = np.frombuffer(bench.publishers.sent[-1][1].data, np.float32)
    assert 2.0 < published_m.mean() < 2.2
    figures = bench.accuracy.figures()
    assert figures.frames == 2
    assert figures.abs_rel == pytest.approx((0 + published_m.mean() / 2 - 1) / 2, rel=1e-4)


def test_a_comparison_without_memory_costs_the_frame_nothing(bench, monkeypatch):
    bench.parameters = DepthNodeParameters(camera_info_timeout_s=0.0, reference_topic='/scan')
    monkeypatch.setattr(bench.accuracy, '_nearest', Mock(side_effect=MemoryError()))
    bench.put()
    bench.worker.stop()
    assert bench.counters.published == 1
    assert bench.accuracy.verdict()[1] == 'Depth cannot be compared: out of memory.'


@pytest.mark.parametrize('compressed', [False, True])
def test_an_image_over_the_bound_is_dropped_and_the_next_one_is_used(bench, compressed):
    bench.parameters = DepthNodeParameters(camera_info_timeout_s=0.0, max_megapixels=0.01)
    grey = np.zeros((100, 101), np.uint8)
    large = Image(height=100, width=101, encoding='mono8', step=101, data=grey.tobytes())
    if compressed:
        large = CompressedImage(format='png', data=cv2.imencode('.png', grey)[1].tobytes())
    bench.put(image=large)
    assert bench.counters.dropped == {'image': 1}
    assert not bench.publishers.sent
    bench.put(second=2)
    assert bench.counters.published == 1


def test_a_bug_does_not_go_unseen(bench):
    bench.estimator.errors.append(KeyError('bug'))
    with pytest.raises(KeyError, match='bug'):
        bench.put()
    with pytest.raises(KeyError, match='bug'):
        bench.worker.stop()


def test_without_listeners_nothing_is_inferred(bench):
    bench.publishers.listened = {'depth/image': 0, 'points': 0}
    bench.put()
    assert (bench.counters.unwanted, bench.counters.processed) == (1, 0)


def test_without_listeners_a_frame_that_is_to_be_shown_is_worked_on(bench):
    bench.publishers.listened = {'depth/image': 0}
    shown = []
    bench.worker.show_next(shown.append)
    bench.put(image=Image(height=4, width=6, encoding='mono9', step=6, data=bytes(24)))
    assert not shown
    bench.put(second=5)
    bench.put(second=6)
    (frame,) = shown
    assert frame.header.stamp.sec == 5
    assert (frame.rgb.shape, frame.prediction.depth.shape) == ((4, 6, 3), (4, 6))
    assert (bench.counters.processed, bench.counters.unwanted) == (1, 2)
    assert (bench.publishers.sent, bench.counters.published) == ([], 0)


def test_switched_off_nothing_is_worked_on_and_the_next_frame_is(bench):
    bench.worker.show_next(lambda _: None)
    bench.worker.enabled = False
    bench.put()
    assert (bench.counters.processed, bench.counters.unwanted) == (0, 1)
    bench.worker.enabled = True
    bench.put(second=2)
    assert bench.counters.published == 1


def test_switched_off_while_a_frame_is_worked_on_it_is_not_published(bench):
    infer = bench.estimator.infer

    def switch_off(rgb: np.ndarray, camera: Any) -> DepthPrediction:
        assert bench.counters.busy_since_s <= time.monotonic()
        bench.worker.enabled = False
        return infer(rgb, camera)

    bench.estimator.infer = switch_off
    bench.put()
    assert bench.publishers.sent == []
    assert (bench.counters.published, bench.counters.unwanted) == (0, 1)
    assert bench.counters.busy_since_s is None


def test_filters_begin_anew(bench):
    bench.parameters = DepthNodeParameters(
        camera_info_timeout_s=0.0, filters_temporal_enable=True, filters_temporal_time_s=1.0
    )
    bench.put(second=1)
    bench.estimator.depth_m = 2.2
    bench.worker.reset_filters()
    bench.put(second=2)
    message = bench.publishers.sent[-1][1]
    assert set(np.frombuffer(message.data, np.float32)) == {np.float32(2.2)}


def test_nothing_of_another_model_is_smoothed_into_the_depth(bench):
    bench.parameters = DepthNodeParameters(
        camera_info_timeout_s=0.0, filters_temporal_enable=True, filters_temporal_time_s=1.0
    )
    bench.put(second=1)
    bench.estimator.depth_m = 2.2
    bench.estimator.made_by = 'fake', 'another'
    bench.put(second=2)
    message = bench.publishers.sent[-1][1]
    assert set(np.frombuffer(message.data, np.float32)) == {np.float32(2.2)}


def test_a_cloud_that_is_not_due_is_not_inferred_for(bench):
    bench.publishers.listened = {'points': 1}
    bench.parameters = DepthNodeParameters(camera_info_timeout_s=0.0, points_max_rate_hz=0.5)
    for second in (1, 2, 3):
        bench.put(second)
    assert (bench.counters.processed, bench.counters.unwanted) == (2, 1)


def test_clouds_whose_stamps_stand_still_are_not_held_back(bench):
    bench.publishers.listened = {'points': 1}
    bench.parameters = DepthNodeParameters(camera_info_timeout_s=0.0, points_max_rate_hz=0.5)
    for _ in range(3):
        bench.put(second=0)
    assert (bench.counters.published, bench.counters.unwanted) == (3, 0)


def test_what_cannot_be_sent_is_counted(bench):
    bench.publishers.failing = {'depth/image'}
    bench.put()
    assert bench.counters.publish_errors == 1
    assert bench.counters.published_of == {}
    assert (bench.counters.published, bench.counters.dropped) == (0, {'publishing': 1})


def test_a_frame_of_which_something_is_sent_is_published(bench):
    bench.publishers.listened = {'depth/image': 1, 'points': 1}
    bench.publishers.failing = {'points'}
    bench.put()
    assert (bench.counters.published, bench.counters.dropped) == (1, {})
    assert bench.counters.publish_errors == 1


def test_stopping_ends_the_thread(bench):
    bench.put()
    bench.worker.stop()
    bench.worker.check()


def test_stopping_tells_that_it_waits_for_a_network_that_does_not_answer(bench, monkeypatch):
    monkeypatch.setattr(frame_worker, 'STOP_S', 0.01)
    busy, told, infer, sentences = Event(), Event(), bench.estimator.infer, []

    def hang(*image_and_camera):
        busy.set()
        assert told.wait(10)
        return infer(*image_and_camera)

    def warn(kind, sentence):
        if kind == 'stop':
            sentences.append(sentence)
            told.set()

    monkeypatch.setattr(bench.estimator, 'infer', hang)
    monkeypatch.setattr(bench.worker, '_warn', warn)
    bench.hand_over(second=1)
    assert busy.wait(10)
    bench.worker.stop()
    assert sentences[0].startswith('Still waits for the image in work.')
    assert bench.counters.published == 1
