"""
Measure the real node: a publisher process, the node's process and a subscriber process.

First one image after the other, each when the depth of the last has arrived: latency and what the
node adds to the network. Then faster than it can work: rate, skipped images, processor time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
import os
from pathlib import Path
from tempfile import TemporaryDirectory
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
import numpy as np
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from llm_mde_core.bench.clock import percentiles_ms
from llm_mde_core.geometry import Camera
from llm_mde_core.model_files import find_model
from llm_mde_ros.bench_listener import Listener, listener
from llm_mde_ros.camera_info import camera_to_info
from llm_mde_ros.dds_domain import spinning_node, use_own_domain
from llm_mde_ros.frame_times import STAGES
from llm_mde_ros.node_process import NodeProcess
from llm_mde_ros.topics import DIAGNOSTICS

NODE = '/depth_node'
TIMED = 'depth/image'
TOPICS = (TIMED, 'depth/camera_info', 'points')
OVERHEAD = ('decode', 'camera', 'outputs', 'publish')  # what is not the network's
STRIDES = (1, 2)
PICTURES = 4  # different ones, in turns
ACTIVE_TIMEOUT_S = 300.0
FRAME_TIMEOUT_S = 60.0
SILENCE_S = 2.0  # after this long no more will come
FLOOD_HZ = 30.0


@dataclass(frozen=True)
class NodeBenchOptions:
    """The node's model and how long to measure it."""

    model: str = 'tiny'
    device: str = 'auto'
    width: int = 640
    height: int = 480
    frames: int = 50  # one after the other
    flood_s: float = 5.0


def first_with_weights(models: Iterable[str]) -> str:
    """Return the first model that the node can load: the benchmark's presets have no weights."""
    for model in models:
        with suppress(FileNotFoundError):
            find_model(model, allow_download=False)
            return model
    raise ValueError('the node needs a model with weights: add tiny to the models')


def measure_node(
    options: NodeBenchOptions, *, say: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """
    Return the figures for depth, camera_info and coloured points, for each stride of the points.

    Raises RuntimeError when a process ends, or when no depth comes.
    """
    use_own_domain()
    parameters = {'model': options.model, 'device': options.device, 'diagnostics_period_s': 0.2}
    with TemporaryDirectory() as folder:
        process = NodeProcess(parameters=parameters, remappings={}, log=Path(folder, 'node.log'))
        with process, listener(TOPICS) as reader, spinning_node('bench_camera') as node:
            camera, reports = BenchCamera(node, options), Reports(node)
            process.wait_until_active(node, name=NODE, timeout_s=ACTIVE_TIMEOUT_S)
            figures = []
            for stride in STRIDES:
                say(f'Measuring the node with points.stride {stride}')
                start_anew(node, camera, process, stride=stride)
                measured = _measure(options, camera, reader, reports, process)
                figures.append({'stride': stride, **measured})
            return figures


def start_anew(node: Node, camera: BenchCamera, process: NodeProcess, *, stride: int) -> None:
    """Let the node forget its figures; it has another stride then."""
    value = Parameter('points.stride', value=stride).to_parameter_msg()
    down, up = (
        ChangeState.Request(transition=Transition(id=number))
        for number in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE)
    )
    _ask(node, process, ChangeState, 'change_state', down)
    wait_until(lambda: not camera.is_read, process, 'The node did not unsubscribe.')
    set_stride = SetParameters.Request(parameters=[value])
    [result] = _ask(node, process, SetParameters, 'set_parameters', set_stride).results
    if not result.successful:
        raise RuntimeError(result.reason)
    _ask(node, process, ChangeState, 'change_state', up)
    wait_until(lambda: camera.is_read, process, 'The node did not subscribe.')
    time.sleep(0.5)  # it may learn of the match a little later than we


def _ask(node: Node, process: NodeProcess, service: Any, name: str, request: Any) -> Any:
    client = node.create_client(service, f'{NODE}/{name}')
    wait_until(client.service_is_ready, process, f'The node has no {name}.')
    future = client.call_async(request)
    wait_until(future.done, process, f'The node did not answer to {name}.')
    node.destroy_client(client)
    return future.result()


def wait_until(condition: Callable[[], bool], process: NodeProcess, complaint: str) -> None:
    """Wait; RuntimeError with the end of the log when the node ends or it takes too long."""
    deadline_s = time.monotonic() + FRAME_TIMEOUT_S
    while not condition():
        process.check()
        if time.monotonic() > deadline_s:
            raise RuntimeError(f'{complaint}\n{process.log_end()}')
        time.sleep(0.05)


def _measure(
    options: NodeBenchOptions,
    camera: BenchCamera,
    reader: Listener,
    reports: Reports,
    process: NodeProcess,
) -> dict[str, Any]:
    latencies_s = one_by_one(camera, reader, process, frames=options.frames)
    stages_ms = reports.stages_ms(published=options.frames, process=process)
    return {
        'frames': options.frames,
        'latency_ms': percentiles_ms(latencies_s),
        'stages_ms': stages_ms,
        'overhead_ms': overhead_ms(stages_ms),
        'flood': flood(camera, reader, process, seconds=options.flood_s),
    }


def overhead_ms(stages_ms: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """
    Return what the node adds to the network: the sum of the medians of the stages in OVERHEAD.

    That is not the median of each frame's sum, which the node's report does not tell; `stats`
    would, but making it takes time that the latency would count. Medians are told to 0.1 ms.
    """
    return {'sum_of_p50': round(sum(stages_ms[stage]['p50'] for stage in OVERHEAD), 1)}


class BenchCamera:
    """Publishes images and camera_info, stamped with the time at which they are sent."""

    def __init__(self, node: Node, options: NodeBenchOptions) -> None:
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        self._image = node.create_publisher(Image, 'image', qos)
        self._info = node.create_publisher(CameraInfo, 'camera_info', qos)
        self.sent = 0
        lens = Camera.from_hfov(width=options.width, height=options.height, hfov_deg=60.0)
        self._info_message = camera_to_info(lens, Header(frame_id='camera'), None)
        random = np.random.default_rng(0)
        self._images = [
            Image(
                header=Header(frame_id='camera'),
                width=options.width,
                height=options.height,
                encoding='bgr8',  # as most drivers publish: it has to be turned round
                step=3 * options.width,
                data=random.integers(
                    0, 256, 3 * options.width * options.height, np.uint8
                ).tobytes(),
            )
            for _ in range(PICTURES)
        ]

    @property
    def is_read(self) -> bool:
        """Return whether the node, and so the subscriber behind it, listens."""
        counts = self._image.get_subscription_count(), self._info.get_subscription_count()
        return all(counts)  # none of them 0

    def send(self) -> int:
        """Publish an image with its calibration; return its stamp."""
        image = self._images[self.sent % PICTURES]
        stamp_ns = time.time_ns()
        for message in (self._info_message, image):
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        self._info.publish(self._info_message)
        self._image.publish(image)
        self.sent += 1
        return stamp_ns


class Reports:
    """Keeps the last of the node's diagnostics."""

    def __init__(self, node: Node) -> None:
        self._last: DiagnosticArray | None = None
        node.create_subscription(DiagnosticArray, DIAGNOSTICS.name, self._keep, 10)

    def _keep(self, message: DiagnosticArray) -> None:
        self._last = message

    def stages_ms(self, *, published: int, process: NodeProcess) -> dict[str, dict[str, float]]:
        """Wait for a report on this many frames; return p50, p95 and p99 of every stage."""
        wait_until(
            lambda: int(self._values().get('published', 0)) == published,  # not of the time before
            process,
            'The node does not report on as many frames as were sent.',
        )
        return stages_of(self._values())

    def _values(self) -> dict[str, str]:
        statuses = self._last.status if self._last else []
        return {pair.key: pair.value for status in statuses for pair in status.values}


def stages_of(values: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Read the percentiles of every stage from the values of a report."""
    stages = {}
    for stage in STAGES:
        p50, p95, p99 = map(float, values[f'{stage} p50, p95, p99 [ms]'].split(','))
        stages[stage] = {'p50': p50, 'p95': p95, 'p99': p99}
    return stages


def one_by_one(
    camera: BenchCamera, reader: Listener, process: NodeProcess, *, frames: int
) -> list[float]:
    """Send each image when the outputs of the last have arrived; return seconds to its depth."""
    latencies_s = []
    for _ in range(frames):
        stamp_ns = camera.send()
        missing = set(TOPICS)
        for arrival in reader.arrivals(timeout_s=FRAME_TIMEOUT_S):
            if arrival.stamp_ns == stamp_ns:
                missing.discard(arrival.topic)
                if arrival.topic == TIMED:
                    latencies_s.append(1e-9 * (arrival.arrived_ns - stamp_ns))
            if not missing:
                break
        else:
            process.check()
            raise RuntimeError(f'No {", ".join(missing)} came.\n{process.log_end()}')
    return latencies_s


def flood(
    camera: BenchCamera, reader: Listener, process: NodeProcess, *, seconds: float
) -> dict[str, Any]:
    """Send images at the rate of a camera; return what became of them and what it cost."""
    pids = {'node': process.pid, 'publisher': os.getpid(), 'subscriber': reader.pid}
    before_s = {name: cpu_s(pid) for name, pid in pids.items()}
    sent_before, start_s = camera.sent, time.monotonic()
    while (passed_s := time.monotonic() - start_s) < seconds:
        camera.send()
        due_s = (camera.sent - sent_before) / FLOOD_HZ
        time.sleep(max(0.0, due_s - passed_s))
    used_s = {name: cpu_s(pid) - before_s[name] for name, pid in pids.items()}
    arrivals = [a for a in reader.arrivals(timeout_s=SILENCE_S) if a.topic == TIMED]
    sent = camera.sent - sent_before
    return {
        'sent': sent,
        'depth': len(arrivals),
        'skipped': sent - len(arrivals),
        'images_per_s': round(_rate_hz([a.arrived_ns for a in arrivals]), 2),
        'latency_ms': percentiles_ms([1e-9 * (a.arrived_ns - a.stamp_ns) for a in arrivals]),
        'cpu_percent': {name: round(100 * used / passed_s) for name, used in used_s.items()},
    }


def _rate_hz(times_ns: list[int]) -> float:
    return 1e9 * (len(times_ns) - 1) / (times_ns[-1] - times_ns[0]) if len(times_ns) > 1 else 0.0


def cpu_s(pid: int) -> float:
    """Return the processor time of a process; Linux."""
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')  # user and system
