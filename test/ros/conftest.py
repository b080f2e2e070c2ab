"""The real node as a process of its own, and a robot around it: a camera, listeners, services."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any

from adapter_bench import Bench
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
import numpy as np
import pytest
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from llm_mde_ros import adapter_swap
from llm_mde_ros.dds_domain import discovery_port, free_domain_id
from llm_mde_ros.topics import DIAGNOSTICS, OUTPUTS
from llm_mde_ros.topics import SERVICES as OWN_SERVICES

REPOSITORY = Path(__file__).resolve().parents[2]
FRAME_ID = 'test_camera_optical_frame'
MESSAGE_TYPES = {topic.name: topic.message_type for topic in OUTPUTS}
SERVICES = {
    'set_parameters': SetParameters,
    'change_state': ChangeState,
    'get_state': GetState,
}
SERVICES |= {service.name.removeprefix('~/'): service.service_type for service in OWN_SERVICES}

QOS = {
    'reliable': QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE),
    'best_effort': QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT),
    'latched': QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
}


def stamp_ns_of(message: Any) -> int:
    """Return the stamp of a message in nanoseconds."""
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def calibration(*, width: int, height: int, fx: float) -> CameraInfo:
    """Return the camera_info of a rectified camera."""
    cx, cy = (width - 1) / 2, (height - 1) / 2
    info = CameraInfo(width=width, height=height, distortion_model='plumb_bob', d=[0.0] * 5)
    info.k = [fx, 0.0, cx, 0.0, fx, cy, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [fx, 0.0, cx, 0.0, 0.0, fx, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


class NodeUnderTest:
    """The process of the node; its output is in a log file."""

    def __init__(self, log: Path, *ros_arguments: str) -> None:
        self.log = log
        command = [sys.executable, '-m', 'llm_mde_ros', '--ros-args', *ros_arguments]
        paths = [str(REPOSITORY), os.environ.get('PYTHONPATH', '')]
        environment = os.environ | {
            'OMP_NUM_THREADS': '1',
            'PYTHONUNBUFFERED': '1',
            'PYTHONPATH': os.pathsep.join(filter(None, paths)),
        }
        with log.open('w') as stream:
            self.process = subprocess.Popen(
                command, stdout=stream, stderr=subprocess.STDOUT, env=environment
            )

    def text(self) -> str:
        return self.log.read_text(errors='replace')

    def end(self) -> None:
        """End in order, if that is possible: DDS's shared memory is given back."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()


class Robot:
    """A camera, listeners and service clients; time passes only while it waits."""

    def __init__(self, node_under_test: NodeUnderTest) -> None:
        self.under_test = node_under_test
        self.stamp_ns = 1_000_000_000_000
        self.received: dict[str, list] = {}
        self.statuses: dict[str, Any] = {}
        self._cameras: dict[tuple, Any] = {}
        self._calibration: tuple = ()  # that the node has
        self._listeners: dict[str, Any] = {}
        self._clients: dict[str, Any] = {}
        self._join()

    def _join(self) -> None:
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = Node('robot', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.node.create_subscription(DiagnosticArray, DIAGNOSTICS.name, self._on_diagnostics, 10)

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()

    def wait_for(self, condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
        """Spin until the condition is true and return its value."""
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            value = condition()
            if value:
                return value
            assert self.under_test.process.poll() is None, self.under_test.text()
            self.executor.spin_once(timeout_sec=0.02)
        values = {name: self.values(name) for name in self.statuses}
        raise AssertionError(f'no {what}; diagnostics {values}; log:\n{self.under_test.text()}')

    # Camera

    def camera(
        self, message_type: type, topic: str, *, qos: str = 'reliable', listened: bool = True
    ) -> Any:
        """Return a publisher, as soon as the node listens to it (if it shall)."""
        key = message_type, topic, qos
        is_new = key not in self._cameras
        if is_new:
            self._cameras[key] = self.node.create_publisher(message_type, topic, QOS[qos])
        publisher = self._cameras[key]
        if listened:
            self.wait_for(publisher.get_subscription_count, f'reader of {topic}')
        if listened and is_new:
            self._meet()
        return publisher

    def unplug(self) -> None:
        """Remove all cameras."""
        for publisher in self._cameras.values():
            self.node.destroy_publisher(publisher)
        self._cameras, self._calibration = {}, ()

    def stamp(self, message: Any) -> Any:
        """Set the header of a camera message: 0.1 s after the last one."""
        self.stamp_ns += 100_000_000
        message.header.frame_id = FRAME_ID
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(self.stamp_ns, 10**9)
        return message

    def image(self, rgb: np.ndarray) -> Image:
        """Return an rgb8 message with the next stamp."""
        height, width = rgb.shape[:2]
        image = Image(height=height, width=width, encoding='rgb8', step=3 * width)
        image.data = rgb.tobytes()
        return self.stamp(image)

    def calibrate(self, *, width: int, height: int, fx: float, qos: str = 'reliable') -> None:
        """Publish the camera_info of a rectified camera, if it is new, and let it arrive."""
        publisher = self.camera(CameraInfo, 'camera_info', qos=qos)
        of = publisher, width, height, fx
        if of == self._calibration:
            return
        self.tell(calibration(width=width, height=height, fx=fx), qos=qos)
        self._calibration = of

    def tell(self, info: CameraInfo, qos: str = 'reliable') -> None:
        """Publish a camera_info and let it arrive."""
        self._calibration = ()
        self.camera(CameraInfo, 'camera_info', qos=qos).publish(info)
        self.settle()

    def settle(self) -> None:
        """Wait until the node has taken what was published, if it was little."""
        for _ in range(2):  # the second report is one of a node that has spun since
            self.count('received')

    def show(self, rgb: np.ndarray, *, fx: float | None = 60.0, qos: str = 'reliable') -> int:
        """Publish an image, its camera_info before it (none for fx=None); return the stamp."""
        camera = self.camera(Image, 'image', qos=qos)
        if fx is not None:
            self.calibrate(width=rgb.shape[1], height=rgb.shape[0], fx=fx)
        camera.publish(self.image(rgb))
        return self.stamp_ns

    # Listeners

    def listen(self, *topics: str) -> None:
        """Listen to exactly these outputs, from now on."""
        for topic in self._listeners.keys() - set(topics):
            self.node.destroy_subscription(self._listeners.pop(topic))
        self.received = {topic: [] for topic in topics}
        for topic in topics:
            if topic not in self._listeners:
                self._listeners[topic] = self.node.create_subscription(
                    MESSAGE_TYPES[topic],
                    topic,
                    lambda message, topic=topic: self.received[topic].append(message),
                    10,
                )
        self.wait_for(
            lambda: self._seen_by_node() == set(topics), f'node that sees readers of {topics}'
        )

    def _seen_by_node(self) -> set[str]:
        values = self.values('output')
        return {t for t in MESSAGE_TYPES if values.get(f'subscribers: {t}', '0') != '0'}

    def answer(self, topic: str, stamp_ns: int) -> Any:
        """Return the message of an output with this stamp."""

        def find() -> Any:
            return next((m for m in self.received[topic] if stamp_ns_of(m) == stamp_ns), None)

        return self.wait_for(find, f'{topic} with stamp {stamp_ns}')

    def answer_eventually(self, topic: str, rgb: np.ndarray) -> Any:
        """Publish images, without camera_info, until one is answered."""
        for _ in range(100):
            self.show(rgb, fx=None)
            end_s = time.monotonic() + 0.2
            while time.monotonic() < end_s and not self.received[topic]:
                self.executor.spin_once(timeout_sec=0.02)
            if self.received[topic]:
                return self.received[topic][-1]
        raise AssertionError(f'no {topic}; log:\n{self.under_test.text()}')

    # Diagnostics

    def values(self, part: str) -> dict[str, str]:
        """Return the key values of the last report: input, output or model."""
        status = self.statuses.get(part)
        return {v.key: v.value for v in status.values} if status else {}

    def told(self, part: str) -> str:
        """Return the sentence of the last report; empty before the first one."""
        status = self.statuses.get(part)
        return status.message if status else ''

    def count(self, key: str, part: str = 'input') -> int:
        """Return a counter of a report that was made from now on."""
        self.statuses.pop(part, None)
        self.wait_for(lambda: part in self.statuses, 'diagnostics')
        return int(self.values(part).get(key, 0))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.statuses[status.name.partition(': ')[2]] = status

    # Services

    def set_parameter(self, name: str, value: Any) -> SetParametersResult:
        request = SetParameters.Request()
        request.parameters = [Parameter(name, value=value).to_parameter_msg()]
        return self._call('set_parameters', request).results[0]

    @contextmanager
    def parameter(self, name: str, value: Any, default: Any) -> Iterator[None]:
        """Change a parameter for a while."""
        result = self.set_parameter(name, value)
        assert result.successful, result.reason
        yield
        assert self.set_parameter(name, default).successful

    def transition(self, name: str) -> bool:
        """Ask for a lifecycle transition; tell whether it succeeded."""
        number = getattr(Transition, f'TRANSITION_{name.upper()}')
        request = ChangeState.Request(transition=Transition(id=number))
        return self._call('change_state', request).success

    def restart(self) -> None:
        """Deactivate and activate."""
        assert self.transition('deactivate')
        assert self.transition('activate')
        self._calibration = ()

    def state(self) -> str:
        """Return the label of the lifecycle state."""
        return self._call('get_state', GetState.Request()).current_state.label

    def ask(self, name: str, **fields: Any) -> Any:
        """Call a service of the node's own and return its answer."""
        return self._call(name, SERVICES[name].Request(**fields))

    def start_asking(self, name: str, **fields: Any) -> Any:
        """Call a service of the node's own and return the future of its answer."""
        return self._start(name, SERVICES[name].Request(**fields))

    def _call(self, name: str, request: Any) -> Any:
        future = self._start(name, request)
        self.wait_for(future.done, f'answer of {name}', timeout_s=60.0)
        return future.result()

    def _start(self, name: str, request: Any) -> Any:
        if name not in self._clients:
            self._clients[name] = self._matched_client(name)
            self._meet()
        return self._clients[name].call_async(request)

    def _meet(self) -> None:
        """
        Wait until the node has discovered all readers and writers that we have made so far.

        DDS makes them known in the order of their creation, so that the answer to a new client
        tells it. Until then messages that the node takes or sends may be lost or come late: so
        is an answer when the node knows the writer of the request but not yet the reader of the
        answer. Therefore we ask for the state, which changes nothing, until an answer comes.
        """
        client = self._matched_client('get_state')
        futures, due_s = [], 0.0

        def is_answered() -> bool:
            nonlocal due_s
            if time.monotonic() >= due_s:
                futures.append(client.call_async(GetState.Request()))
                due_s = time.monotonic() + 1.0
            return any(future.done() for future in futures)

        self.wait_for(is_answered, 'answer of get_state', timeout_s=60.0)
        self.node.destroy_client(client)

    def _matched_client(self, name: str) -> Any:
        """
        Return a client that has found its service.

        One that was made while DDS discovers the node at times stays alone for ever, while a
        later one finds it at once: after ten seconds it is made anew, and as long as there is
        nothing else, the whole robot is.
        """
        client, due_s = None, 0.0

        def is_matched() -> bool:
            nonlocal client, due_s
            if time.monotonic() >= due_s:
                if client is not None:
                    self.node.destroy_client(client)
                    if not (self._cameras or self._listeners or self._clients):
                        self.close()
                        self._join()
                client = self.node.create_client(SERVICES[name], f'depth_node/{name}')
                due_s = time.monotonic() + 10.0
            return client.service_is_ready()

        self.wait_for(is_matched, f'service {name}', timeout_s=120.0)
        return client


@pytest.fixture(scope='session')
def own_domain() -> Iterator[None]:
    """Hear nothing from other nodes."""
    domain = free_domain_id()
    with pytest.MonkeyPatch.context() as patch, discovery_port(domain):  # held between the nodes
        patch.setenv('ROS_DOMAIN_ID', str(domain))
        patch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        patch.setenv('ROS_LOCALHOST_ONLY', '1')  # the same before Jazzy
        yield


@pytest.fixture
def camera_node(own_domain: None) -> Iterator[Node]:
    """Return a node in this process that nobody spins."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node('camera', context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


@pytest.fixture(scope='session')
def start_node(
    own_domain: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., NodeUnderTest]:
    """Return a function that starts the node with parameters."""
    folder = tmp_path_factory.mktemp('node')

    def start(parameters: dict[str, Any]) -> NodeUnderTest:
        settings = [f'{name}:={value}' for name, value in parameters.items()]
        arguments = [part for setting in settings for part in ('-p', setting)]
        return NodeUnderTest(folder / f'{len(list(folder.iterdir()))}.log', *arguments)

    return start


@pytest.fixture(scope='session')
def robot_around(own_domain: None) -> type[Robot]:
    """Return the robot, for a node that a test runs itself."""
    return Robot


@pytest.fixture(scope='session')
def robot_with(start_node: Callable[..., NodeUnderTest]) -> Callable[..., Any]:
    """Return a context that starts a node with parameters, a robot around it, and ends both."""

    @contextmanager
    def running(parameters: dict[str, Any]) -> Iterator[Robot]:
        under_test = start_node({'diagnostics_period_s': 0.1} | parameters)
        robot = Robot(under_test)
        try:
            yield robot
        finally:
            robot.close()
            under_test.end()

    return running


@pytest.fixture(scope='module')
def robot(robot_with: Any, tiny_model_dir: Path) -> Iterator[Robot]:
    """Return a robot around an active node, which shall not end with a traceback in its log."""
    parameters = {'model': tiny_model_dir, 'device': 'cpu', 'output_depth': 10}
    with robot_with(parameters) as robot:
        robot.wait_for(lambda: robot.state() == 'active', 'active node', timeout_s=120.0)
        yield robot
        assert 'Traceback' not in robot.under_test.text()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(adapter_swap, 'PAUSE_S', 0.0)
    bench = Bench()
    yield bench
    bench.swap.join()
