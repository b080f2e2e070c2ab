"""The robot around the node in a soak: its camera, listeners and calls, and the accounts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.client import Client
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from llm_mde_ros.bags import header_stamp_ns
from llm_mde_ros.node_process import NodeProcess
from llm_mde_ros.topics import DIAGNOSTICS, OUTPUTS
from soak.accounts import Accounts, Vitals, counts_of, without_fate
from soak.camera import BAD_FILES, BAD_IMAGES, SoakCamera

NODE = '/depth_node'
RATE_HZ = 10.0
WAIT_S = 60.0  # what does not happen within hangs
SETTLE_S = 0.5  # after a match, as one side may learn of it later
DIAGNOSTICS_PERIOD_S = 0.2
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


class SoakRobot:
    """All that the node sees; time passes only in its methods, except for what arrives."""

    def __init__(
        self, node: Node, process: NodeProcess, *, random: Random, adapters: tuple[str, ...]
    ) -> None:
        self.node, self.process, self.random = node, process, random
        self.adapters = adapters  # the last one is damaged
        self.camera = SoakCamera(Random(random.getrandbits(64)))  # used for every image
        self.accounts = Accounts()
        self.samples: list[Vitals] = []
        self.rests: list[Vitals] = []
        self.transport = 'raw'
        self.is_enabled = True
        self.offset_ns = 0  # of the stamps, which jump
        self._before: Counter[str] = Counter()  # fates until the node was last activated
        self._start_s = self._due_s = time.monotonic()
        self._image = node.create_publisher(Image, 'image', RELIABLE)
        self._file = node.create_publisher(CompressedImage, 'image/compressed', RELIABLE)
        self._info = node.create_publisher(CameraInfo, 'camera_info', RELIABLE)
        self._report: dict[str, str] = {}
        self._reports = 0
        self._listeners: dict[str, Any] = {}
        self._clients: dict[str, Client] = {}
        node.create_subscription(DiagnosticArray, DIAGNOSTICS.name, self._keep_report, 10)
        self.listen({'depth/image'})

    # Time

    def start(self) -> None:
        """Begin to count the time."""
        self.wait_for_reader()
        self._start_s = self._due_s = time.monotonic()

    @property
    def seconds(self) -> float:
        """Return how long it has run."""
        return time.monotonic() - self._start_s

    def tick(
        self, *, bad: bool = False, spoil_info: Callable[[CameraInfo], None] | None = None
    ) -> None:
        """Send the next image when it is due, and look after the node once a second."""
        self.process.check()
        second = self.seconds
        if not self.samples or second - self.samples[-1].second >= 1.0:
            self.samples.append(Vitals.of(self.process.pid, second=second))
        self._due_s = max(self._due_s + 1 / RATE_HZ, time.monotonic() - 1 / RATE_HZ)
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        self._send(bad=bad, spoil_info=spoil_info)

    def ticks(self, count: int, **how: Any) -> None:
        """Send some images."""
        for _ in range(count):
            self.tick(**how)

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait without sending; RuntimeError when it takes too long."""
        deadline_s = time.monotonic() + WAIT_S
        while not (value := condition()):
            self.process.check()
            if time.monotonic() > deadline_s:
                raise RuntimeError(
                    f'No {what} within {WAIT_S:g} s. Last report: {self._report}\n'
                    f'{self.process.log_end()}'
                )
            time.sleep(0.02)
        return value

    def expect(self, is_so: bool, what: str) -> None:
        """Keep what a request should have had as its answer, if it had another one."""
        if not is_so:
            self.accounts.failed.append(f'not so: {what}')

    # Camera

    def _send(self, *, bad: bool, spoil_info: Callable[[CameraInfo], None] | None) -> None:
        stamp_ns = time.time_ns() + self.offset_ns
        info = self.camera.calibration(stamp_ns)
        if spoil_info:
            spoil_info(info)
        raw = self.transport == 'raw'
        image = self.camera.image(stamp_ns) if raw else self.camera.file(stamp_ns)
        if bad:
            self.random.choice(BAD_IMAGES if raw else BAD_FILES)(image)
        if not self.is_heard:
            self.accounts.unheard += 1
        else:
            (self.accounts.bad if bad or spoil_info else self.accounts.good).add(stamp_ns)
            self.accounts.sizes[stamp_ns] = self.camera.picture.size
        self._info.publish(info)
        (self._image if raw else self._file).publish(image)

    @property
    def is_heard(self) -> bool:
        """Tell whether the node receives images."""
        return self.is_enabled and 'depth/image' in self._listeners

    def publish_calibration(
        self, spoil_info: Callable[[CameraInfo], None] = lambda info: None
    ) -> None:
        """Let the node know the camera before its next image."""
        info = self.camera.calibration(time.time_ns() + self.offset_ns)
        spoil_info(info)
        self._info.publish(info)
        time.sleep(SETTLE_S)

    def wait_for_reader(self) -> None:
        """Wait until the node receives images and camera_info, then tell it the camera."""
        used, other = self._image, self._file
        if self.transport != 'raw':
            used, other = other, used
        self.wait(
            lambda: (
                used.get_subscription_count() == int(self.is_heard)
                and not other.get_subscription_count()
                and self._info.get_subscription_count()
            ),
            'change of the reader of images',
        )
        time.sleep(SETTLE_S)
        self.publish_calibration()

    # Listeners

    def listen(self, topics: set[str]) -> None:
        """Listen to exactly these outputs."""
        for topic in self._listeners.keys() - topics:
            self.node.destroy_subscription(self._listeners.pop(topic))
        types = {topic.name: topic.message_type for topic in OUTPUTS}
        for topic in topics - self._listeners.keys():
            self._listeners[topic] = self.node.create_subscription(
                types[topic],
                topic,
                lambda cdr, topic=topic: self._take(topic, cdr),
                RELIABLE,
                raw=True,
            )

    def _take(self, topic: str, cdr: bytes) -> None:
        if topic == 'depth/image':
            self.accounts.take_depth(deserialize_message(cdr, Image), header_stamp_ns(cdr))
        else:
            self.accounts.take_output(topic, header_stamp_ns(cdr))

    def _keep_report(self, message: DiagnosticArray) -> None:
        self._report = {pair.key: pair.value for s in message.status for pair in s.values}
        self._reports += 1

    def next_counts(self) -> Counter[str]:
        """Return how often images met each fate, of a report that is made from now on."""
        seen = self._reports
        self.wait(lambda: self._reports >= seen + 2, 'report')  # the first may be on its way
        return counts_of(self._report)

    def settle(self) -> None:
        """Wait until the node is done with all images that were sent, and count them."""
        time.sleep(SETTLE_S)
        deadline_s, last = time.monotonic() + WAIT_S, None
        while True:
            counts = self.next_counts()
            if counts == last and (not without_fate(counts) or time.monotonic() > deadline_s):
                break
            last = counts
        self.accounts.settle(self._before + counts)

    def forget_counts(self) -> None:
        """Begin anew, as the node does when it is activated; settle() before."""
        self._before = self.accounts.fates.copy()

    # Services

    def call(self, service: type, name: str, request: Any, *, sending: bool = True) -> Any:
        """Return the answer of a service of the node, sending images until it comes."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(service, f'{NODE}/{name}')
            self.wait(self._clients[name].service_is_ready, f'service {name}')
            time.sleep(SETTLE_S)
        client = self._clients[name]
        future = client.call_async(request)
        if sending:
            deadline_s = time.monotonic() + WAIT_S
            while not future.done() and time.monotonic() < deadline_s:
                self.tick()
        self.wait(future.done, f'answer of {name}')
        return future.result()
