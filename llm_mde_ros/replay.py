"""Depth for every colour image of a bag: a bag in, a bag out, nothing over DDS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rclpy.serialization import serialize_message
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Writer

from llm_mde_core.estimator import DepthEstimator
from llm_mde_ros.bags import (
    CAMERA_INFO,
    IMAGE,
    BagMessage,
    BagReader,
    CameraTopics,
    declare,
    find_camera_topics,
    to_rgb,
)
from llm_mde_ros.camera_history import CameraHistory
from llm_mde_ros.camera_source import CameraSource
from llm_mde_ros.outputs import OutputSettings, make_outputs, within_limits
from llm_mde_ros.resumable_bag import ResumableBag, check_new

OUTPUT_TYPES = {
    'depth/image': IMAGE,
    'depth/camera_info': CAMERA_INFO,
    'depth/preview': IMAGE,
    'confidence': IMAGE,
    'points': 'sensor_msgs/msg/PointCloud2',
}


@dataclass(frozen=True)
class ReplayOptions:
    """What to make; an interrupted replay goes on only with the same options."""

    model: str = 'tiny'
    adapter: str | None = None
    device: str = 'auto'
    precision: str = 'auto'
    allow_download: bool = False
    image_topic: str | None = None
    camera_info_topic: str | None = None
    image_rectified: bool = False  # also beside a camera_info with distortion
    hfov_deg: float = 60.0
    outputs: tuple[str, ...] = ('depth/image', 'depth/camera_info', 'depth/preview', 'points')
    namespace: str = ''
    with_originals: bool = False
    settings: OutputSettings = field(default_factory=OutputSettings)
    part_bytes: int = 512 * 2**20  # what a kill loses at most; one file of the bag each


@dataclass(frozen=True)
class ReplaySummary:
    """What a replay did, from its first start on."""

    topics: CameraTopics
    images: int
    dropped: int  # of these images
    reason: str  # why the first one was dropped
    warning: str  # about the camera
    left_out: tuple[str, ...]  # topics that could not be copied


def replay(
    source: Path | str,
    out: Path | str,
    options: ReplayOptions,
    *,
    on_frame: Callable[[int, int], None] = lambda done, total: None,
) -> ReplaySummary:
    """
    Write depth, camera_info, preview and cloud of every colour image into a new mcap bag.

    Goes on with an unfinished one. `on_frame` is told how many of how many images are done.
    Raises ValueError or OSError with a sentence.
    """
    check_new(out)
    with BagReader(source) as bag:
        topics = find_camera_topics(
            bag, image=options.image_topic, camera_info=options.camera_info_topic
        )
        layout = Layout.of(bag, options)
        frames = Frames.of(bag, topics, options)
        job = {'source': str(bag.path.absolute()), **asdict(options)}
        with ResumableBag(out, job=job) as result:
            counters = write_parts(
                bag, topics, layout=layout, frames=frames, result=result, on_frame=on_frame
            )
            if counters['dropped'] == counters['images']:
                result.discard()
                raise ValueError(
                    f'None of the {counters["images"]} images of {topics.image} '
                    f'could be used: {counters["reason"]}'
                )
            result.publish(about={'source': bag.path.name, 'model': options.model})
    return ReplaySummary(topics=topics, left_out=layout.left_out, **counters)


def write_parts(
    bag: BagReader,
    topics: CameraTopics,
    *,
    layout: Layout,
    frames: Frames,
    result: ResumableBag,
    on_frame: Callable[[int, int], None],
) -> dict[str, Any]:
    """Take the rest of the bag through the network; return the counters of the whole."""
    counters = {'images': 0, 'dropped': 0, 'reason': '', 'warning': '', **result.counters}
    total, part = bag.count(topics.image), None
    on_frame(counters['images'], total)
    messages = islice(bag.messages({*layout.copied, topics.image}), result.position, None)
    for position, message in enumerate(messages, start=result.position + 1):
        part = part or Part(result.begin_part(), bag, layout)
        if message.topic in layout.copied:
            part.copy(message)
        if message.topic == topics.image:
            try:
                part.add(frames.outputs(message), time_ns=message.time_ns)
            except ValueError as error:
                counters['dropped'] += 1
                counters['reason'] = counters['reason'] or str(error)
            counters['images'] += 1
            counters['warning'] = counters['warning'] or frames.source.warning
            on_frame(counters['images'], total)
        if part.size >= frames.options.part_bytes:
            result.complete_part(part.writer, position=position, counters=counters)
            part = None
    if part:
        result.complete_part(part.writer, position=position, counters=counters)
    return counters


@dataclass(frozen=True)
class Layout:
    """The topics of the new bag: outputs under their full names, and copied originals."""

    outputs: dict[str, str]  # 'depth/image' -> '/front/depth/image'
    copied: tuple[str, ...]
    left_out: tuple[str, ...]

    @classmethod
    def of(cls, bag: BagReader, options: ReplayOptions) -> Layout:
        """Lay out the new bag; ValueError when an output has the name of an original."""
        prefix = '/' + options.namespace.strip('/') if options.namespace.strip('/') else ''
        outputs = {name: f'{prefix}/{name}' for name in options.outputs}
        originals = [t for t in bag.topics if bag.count(t)] if options.with_originals else []
        clash = sorted(set(outputs.values()) & set(originals))
        if clash:
            raise ValueError(f'The bag has {clash[0]} already; choose another namespace.')
        copied = tuple(t for t in originals if bag.is_copyable(t))
        return cls(outputs, copied, left_out=tuple(t for t in originals if t not in copied))


@dataclass(frozen=True)
class Frames:
    """What the node does with an image, for images of a bag."""

    estimator: DepthEstimator
    history: CameraHistory
    source: CameraSource
    options: ReplayOptions

    @classmethod
    def of(cls, bag: BagReader, topics: CameraTopics, options: ReplayOptions) -> Frames:
        """Load the model and the cameras."""
        estimator = DepthEstimator.from_pretrained(
            options.model,
            adapter=options.adapter,
            device=options.device,
            precision=options.precision,
            allow_download=options.allow_download,
        )
        return cls(estimator, CameraHistory(bag, topics.camera_info), CameraSource(), options)

    def outputs(self, message: BagMessage) -> dict[str, Any]:
        """Convert, infer, convert; ValueError when the image or its camera cannot be used."""
        image = message.decode()
        rgb = to_rgb(image)
        info = self.history.at(stamp_ns=message.stamp_ns, time_ns=message.time_ns)
        camera, info = self.source.for_image(
            info,
            width=rgb.shape[1],
            height=rgb.shape[0],
            hfov_deg=self.options.hfov_deg,
            timeout_s=0.0,
            rectified=self.options.image_rectified,
            image_frame=image.header.frame_id,
        )
        return make_outputs(
            within_limits(self.estimator.infer(rgb, camera), self.options.settings),
            rgb=rgb,
            camera=camera,
            header=image.header,
            wanted=self.options.outputs,
            settings=self.options.settings,
            source_info=info,
        )


class Part:
    """One file of the new bag while it is being written; every file declares all topics."""

    def __init__(self, writer: Writer, bag: BagReader, layout: Layout) -> None:
        self.writer = writer
        self.size = 0  # bytes of messages
        self._copies = {topic: bag.declare_in(writer, topic) for topic in layout.copied}
        self._outputs = {
            name: declare(writer, topic, OUTPUT_TYPES[name])
            for name, topic in layout.outputs.items()
        }

    def copy(self, message: BagMessage) -> None:
        """Write a message of the source as it is."""
        self._write(self._copies[message.topic], message.time_ns, message.cdr)

    def add(self, outputs: dict[str, Any], *, time_ns: int) -> None:
        """Write what was made of an image, at the time of the image."""
        for name, output in outputs.items():
            self._write(self._outputs[name], time_ns, serialize_message(output))

    def _write(self, connection: Connection, time_ns: int, cdr: bytes) -> None:
        self.writer.write(connection, time_ns, cdr)
        self.size += len(cdr)
