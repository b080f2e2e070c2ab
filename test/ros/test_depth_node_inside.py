"""The node in this process, where its parts can be made slow or fail."""

from __future__ import annotations

from collections.abc import Iterator
import json
from threading import Event, Thread
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.service import Service
from std_srvs.srv import Trigger
import torch

from llm_mde_core.estimator import DepthEstimator, DepthPrediction
from llm_mde_ros import __main__ as executable
from llm_mde_ros import adapter_requests, depth_node, overload, services
from llm_mde_ros.late_service import LateService
from llm_mde_ros.model_loading import LoadedModel
from llm_mde_ros.parameters import DepthNodeParameters
from llm_mde_ros.topics import LoadAdapter


class SlowEstimator:
    """Waits in its network until it is let go."""

    device = 'cpu'
    compiles = False
    depth_range_m = (0.1, 10.0)

    def __init__(self, depth_m: float = 2.0) -> None:
        self.depth_m = depth_m
        self.busy, self.let_go = Event(), Event()
        self.errors: list[Exception] = []

    def warm_up(self, camera: Any) -> float:
        return 0.0

    def infer(self, rgb: np.ndarray, camera: Any) -> DepthPrediction:
        self.busy.set()
        assert self.let_go.wait(60)
        if self.errors:
            raise self.errors.pop()
        depth = torch.full(rgb.shape[:2], self.depth_m)
        stages_s = dict.fromkeys(('preprocess', 'network', 'postprocess'), 0.001)
        return DepthPrediction(
            depth,
            lambda: torch.ones_like(depth),
            stages_s,
            read_prompt=lambda: ('near', 'A wall.'),
        )

    def info(self) -> dict[str, object]:
        return {'model': 'slow'}

    def on_cpu(self) -> SlowEstimator:
        other = SlowEstimator(depth_m=self.depth_m + 1)
        other.let_go.set()
        return other


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowEstimator:
    estimator = SlowEstimator()
    monkeypatch.setattr(DepthEstimator, 'from_pretrained', lambda *_, **__: estimator)
    return estimator


@pytest.fixture
def context(own_domain: None) -> Iterator[None]:
    rclpy.init(args=['--ros-args', '-p', 'diagnostics_period_s:=0.1'])
    yield
    rclpy.try_shutdown()


@pytest.fixture
def stop() -> Event:
    return Event()


@pytest.fixture
def robot(slow: SlowEstimator, context: None, robot_around: Any, stop: Event) -> Iterator[Any]:
    thread = Thread(target=executable.run, args=(stop,))
    thread.start()
    process = SimpleNamespace(poll=lambda: None if thread.is_alive() else 1)
    robot = robot_around(SimpleNamespace(process=process, text=str))
    yield robot
    slow.let_go.set()
    stop.set()
    thread.join()
    robot.close()


def test_services_answer_and_images_are_taken_while_the_network_runs(
    robot: Any, slow: SlowEstimator, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(overload, 'NO_DEPTH_AFTER_S', 0.3)
    monkeypatch.setattr(services, 'SAVE_WAIT_S', 0.3)
    robot.wait_for(lambda: robot.state() == 'active', 'active node')
    robot.listen('depth/image')
    first_ns = robot.show(rgb)
    robot.wait_for(slow.busy.is_set, 'inference')
    started_s = time.monotonic()
    assert robot.set_parameter('points.stride', 4).successful
    assert robot.state() == 'active'
    newest_ns = [robot.show(rgb) for _ in range(3)][-1]
    robot.wait_for(lambda: robot.count('skipped') == 2, 'skipped images')
    assert time.monotonic() - started_s < 10.0
    assert robot.received['depth/image'] == []
    robot.wait_for(lambda: robot.told('output').startswith('No depth for '), 'error')
    assert robot.statuses['output'].level == b'\2'
    answer = robot.ask('save_frame')
    assert not answer.success
    assert answer.message == 'No image was worked on within 0.3 s: /diagnostics says why.'
    slow.let_go.set()
    robot.answer('depth/image', first_ns)
    robot.answer('depth/image', newest_ns)
    robot.wait_for(lambda: robot.told('output') == 'Publishes depth/image.', 'recovery')


def test_switched_off_the_image_in_the_network_is_not_published_and_ended_the_saved_one_is_told(
    robot: Any,
    slow: SlowEstimator,
    rgb: np.ndarray,
    stop: Event,
    monkeypatch: pytest.MonkeyPatch,
):
    writing, go_on = Event(), Event()

    def write(*_: object, **__: object) -> str:
        writing.set()
        assert go_on.wait(60)
        return 'frames/last'

    monkeypatch.setattr(services, 'save_frame', write)
    robot.wait_for(lambda: robot.state() == 'active', 'active node')
    robot.listen('depth/image')
    robot.show(rgb)
    robot.wait_for(slow.busy.is_set, 'inference')
    assert robot.ask('enable', data=False).success
    slow.let_go.set()
    robot.wait_for(lambda: robot.count('unwanted') == 1, 'end of the image')
    assert robot.received['depth/image'] == []
    assert robot.ask('enable', data=True).success

    answer = robot.start_asking('save_frame')
    robot.answer('depth/image', robot.show(rgb))
    robot.wait_for(writing.is_set, 'begin of the writing')
    stop.set()
    time.sleep(0.2)  # so that the node waits for the end of it
    go_on.set()
    end_s = time.monotonic() + 30
    while not answer.done():
        assert time.monotonic() < end_s
        robot.executor.spin_once(timeout_sec=0.02)
    assert (answer.result().success, answer.result().message) == (True, 'frames/last')


def test_a_gpu_without_memory_costs_one_frame_and_is_told(
    robot: Any, slow: SlowEstimator, rgb: np.ndarray
):
    robot.wait_for(lambda: robot.state() == 'active', 'active node')
    robot.listen('depth/image')
    slow.errors.append(torch.OutOfMemoryError('CUDA out of memory'))
    slow.let_go.set()
    robot.show(rgb)
    robot.wait_for(lambda: 'GPU is out of memory' in robot.told('model'), 'error')
    assert robot.statuses['model'].level == b'\2'
    assert robot.count('dropped: inference') == 1
    robot.answer('depth/image', robot.show(rgb))
    robot.wait_for(lambda: robot.told('model') == 'Loaded.', 'recovery')
    assert len(robot.received['depth/image']) == 1


def test_a_gpu_without_memory_is_left_for_the_cpu_where_that_is_allowed(
    robot: Any, slow: SlowEstimator, rgb: np.ndarray
):
    robot.wait_for(lambda: robot.state() == 'active', 'active node')
    robot.listen('depth/image')
    assert robot.set_parameter('cpu_fallback', True).successful
    slow.errors.append(torch.OutOfMemoryError('CUDA out of memory'))
    slow.let_go.set()
    for _ in range(2):
        message = robot.answer('depth/image', robot.show(rgb))
        assert set(np.frombuffer(message.data, np.float32)) == {np.float32(3.0)}
    robot.wait_for(lambda: 'the network is on the CPU' in robot.told('model'), 'warning')
    assert robot.statuses['model'].level == b'\1'
    assert robot.count('dropped: inference') == 0


@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_a_gpu_that_is_lost_ends_the_node(robot: Any, slow: SlowEstimator, rgb: np.ndarray):
    robot.wait_for(lambda: robot.state() == 'active', 'active node')
    robot.listen('depth/image')
    slow.errors.append(RuntimeError('CUDA error: an illegal memory access was encountered'))
    slow.let_go.set()
    robot.show(rgb)
    end_s = time.monotonic() + 30
    while robot.under_test.process.poll() is None:
        assert time.monotonic() < end_s, 'it works on with a GPU that does not'
        robot.executor.spin_once(timeout_sec=0.02)


class SlowLoad:
    """Loads an adapter that makes everything 3 m, when it is told to go on."""

    def __init__(self) -> None:
        self.begun, self.go_on = Event(), Event()
        self.errors: list[Exception] = []  # of what is loaded, one for each image

    def __call__(self, parameters: DepthNodeParameters, _log: Any) -> LoadedModel:
        self.begun.set()
        assert self.go_on.wait(60)
        self.begun.clear()
        estimator = SlowEstimator(depth_m=3.0)
        estimator.let_go.set()
        self.errors = estimator.errors
        return LoadedModel(estimator, parameters.adapter)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, robot: Any, slow: SlowEstimator) -> Iterator[SlowLoad]:
    load = SlowLoad()
    monkeypatch.setattr(adapter_requests, 'load_model', load)
    slow.let_go.set()
    yield load
    load.go_on.set()


@pytest.mark.skipif(LoadAdapter is None, reason='llm_mde_msgs is not installed')
def test_the_node_goes_on_while_an_adapter_is_loaded_and_whatever_happens_to_it(
    robot: Any, load: SlowLoad, rgb: np.ndarray
):
    def depth_m() -> float:
        message = robot.answer('depth/image', robot.show(rgb))
        return float(np.frombuffer(message.data, np.float32)[0])

    def adapter() -> str:
        return json.loads(robot.ask('info').message)['parameters']['adapter']

    def serving() -> str:
        return json.loads(robot.ask('info').message)['model']['adapter']

    robot.wait_for(lambda: robot.state() == 'active', 'active node')
    robot.listen('depth/image')
    first = robot.start_asking('load_adapter', adapter='first')
    robot.wait_for(load.begun.is_set, 'load')
    assert depth_m() == 2.0
    robot.wait_for(lambda: robot.told('model') == 'The adapter first is being loaded.', 'sentence')
    second = robot.ask('load_adapter', adapter='second')
    assert not second.success
    assert 'The adapter first is being loaded' in second.message
    assert 'is being loaded' in robot.set_parameter('adapter', 'second').reason
    assert robot.set_parameter('points.stride', 3).successful
    load.go_on.set()
    robot.wait_for(first.done, 'answer')
    assert first.result().success
    assert depth_m() == 3.0

    load.go_on.clear()
    assert robot.set_parameter('adapter', '').successful
    robot.wait_for(load.begun.is_set, 'load')
    back = robot.set_parameter('adapter', 'first')  # what serves, but not for long
    assert 'The model without an adapter is being loaded' in back.reason
    assert robot.transition('deactivate')  # which does not end it
    assert adapter() == ''
    load.go_on.set()
    robot.wait_for(lambda: serving() == 'none', 'end of the load')

    load.go_on.clear()
    third = robot.start_asking('load_adapter', adapter='third')
    robot.wait_for(load.begun.is_set, 'load')
    assert robot.transition('cleanup')
    robot.wait_for(third.done, 'answer')
    assert third.result().message == 'The node let go of its model.'
    assert adapter() == ''
    assert robot.transition('configure')
    fourth = robot.start_asking('load_adapter', adapter='fourth')  # waits for the third to end
    robot.settle()
    load.go_on.set()
    robot.wait_for(fourth.done, 'answer')
    assert adapter() == 'fourth'

    load.go_on.clear()
    gone = robot.node.create_client(LoadAdapter, 'depth_node/load_adapter')
    robot.wait_for(gone.service_is_ready, 'service')
    gone.call_async(LoadAdapter.Request(adapter='nobody waits for it'))
    robot.wait_for(load.begun.is_set, 'load')
    robot.node.destroy_client(gone)
    load.go_on.set()
    robot.wait_for(lambda: adapter() == 'nobody waits for it', 'adapter')

    load.go_on.clear()
    assert robot.set_parameter('adapter', 'fifth').successful
    robot.wait_for(load.begun.is_set, 'load')
    assert robot.transition('inactive_shutdown')
    assert robot.state() == 'finalized'
    assert adapter() == 'nobody waits for it'


def test_an_adapter_that_fails_at_a_real_image_leaves_it_to_what_served_before(
    robot: Any, load: SlowLoad, rgb: np.ndarray
):
    def facts() -> dict[str, Any]:
        return json.loads(robot.ask('info').message)

    robot.wait_for(lambda: robot.state() == 'active', 'active node')
    robot.listen('depth/image')
    load.go_on.set()
    assert robot.set_parameter('adapter', 'first').successful
    robot.wait_for(lambda: facts()['model']['adapter'] == 'first', 'adapter')
    load.errors.append(KeyError(7))
    message = robot.answer('depth/image', robot.show(rgb))
    assert set(np.frombuffer(message.data, np.float32)) == {np.float32(2.0)}
    robot.wait_for(lambda: facts()['parameters']['adapter'] == '', 'parameter')
    assert facts()['model']['adapter'] == 'none'
    told = (
        'The adapter first failed at its first images: KeyError: 7. '
        'The model without an adapter serves again.'
    )
    robot.wait_for(lambda: robot.told('model') == told, 'diagnostics')
    assert robot.statuses['model'].level == b'\1'
    assert robot.count('dropped: inference') == 0


def test_a_bad_parameter_at_the_start_ends_the_process_with_a_sentence(
    own_domain: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(executable.signal, 'signal', lambda *_: None)  # those of pytest stay
    with pytest.raises(SystemExit) as caught:
        executable.main(['--ros-args', '-p', 'hfov_deg:=wide'])
    assert caught.value.code == "depth_node: hfov_deg must be of type float, not 'wide'."


def test_a_bug_while_running_keeps_its_traceback_and_the_node_is_taken_down(
    context: None, monkeypatch: pytest.MonkeyPatch
):
    ended = []

    def fail(_node: depth_node.DepthNode) -> None:
        raise ValueError('a bug')

    def close(_node: depth_node.DepthNode) -> None:
        raise KeyError('another bug')

    destroy = depth_node.DepthNode.destroy_node
    monkeypatch.setattr(depth_node.DepthNode, 'autostart', fail)
    monkeypatch.setattr(depth_node.DepthNode, 'close', close)
    monkeypatch.setattr(
        depth_node.DepthNode, 'destroy_node', lambda node: ended.append(destroy(node))
    )
    with pytest.raises(KeyError, match='another bug') as caught:
        executable.run(Event())
    assert str(caught.value.__context__) == 'a bug'
    assert len(ended) == 1


def test_a_bug_in_a_transition_is_told_until_the_node_is_configured(
    context: None, slow: SlowEstimator, monkeypatch: pytest.MonkeyPatch
):
    node = depth_node.DepthNode()

    def fail(*_: object, **__: object) -> None:
        raise KeyError('a bug')

    def told() -> str:
        return node._situation().configure_error

    with monkeypatch.context() as patch:
        patch.setattr(depth_node, 'OutputPublishers', fail)
        node.trigger_configure()
    assert node.state_label == 'unconfigured'
    assert told().startswith("on_configure failed (KeyError: 'a bug'), the log says where.")
    assert node.trigger_configure() == depth_node.TransitionCallbackReturn.SUCCESS
    assert told() == ''
    node.close()
    node.join()
    node.destroy_node()


def test_what_a_file_says_is_told_in_part_when_it_is_long(
    context: None, slow: SlowEstimator, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise ValueError(f'unknown key {"k" * 1_000_000}, expected another')

    monkeypatch.setattr(DepthEstimator, 'from_pretrained', fail)
    node = depth_node.DepthNode()
    assert node.trigger_configure() == depth_node.TransitionCallbackReturn.FAILURE
    told = node._situation().configure_error
    assert len(told) < 1500
    assert told.startswith('Cannot load the model: unknown key kkk')
    assert 'kkk, expected another. Set what is wrong' in told
    node.close()
    node.join()
    node.destroy_node()


def test_a_gpu_too_small_for_the_model_is_told_and_the_node_can_be_configured_later(
    context: None, slow: SlowEstimator, monkeypatch: pytest.MonkeyPatch
):
    node = depth_node.DepthNode()

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError('CUDA out of memory')

    with monkeypatch.context() as patch:
        patch.setattr(DepthEstimator, 'from_pretrained', fail)
        assert node.trigger_configure() == depth_node.TransitionCallbackReturn.FAILURE
    assert 'CUDA out of memory' in node._situation().configure_error
    assert node.trigger_configure() == depth_node.TransitionCallbackReturn.SUCCESS
    assert node._situation().configure_error == ''
    node.close()
    node.join()
    node.destroy_node()


def test_who_asked_and_who_reads_diagnostics_cannot_end_the_node(
    context: None, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise rclpy_implementation.RCLError('cannot publish data')

    monkeypatch.setattr(Service, 'send_response', refuse)
    node = depth_node.DepthNode()
    LateService(node, Trigger, 'late', lambda _request, answer: answer(True, 'Too late.'))
    *_, late = node.services
    late.send_response((Trigger.Request(), Trigger.Response()), None)
    node._counters.publish_errors = 1
    sound = node._diagnostics
    node._diagnostics = SimpleNamespace(publish=refuse)
    node._publish_diagnostics()
    assert node._counters.publish_errors_before == 0  # nobody was told
    node._diagnostics = sound
    node._publish_diagnostics()
    assert node._counters.publish_errors_before == 1
    node.destroy_node()
