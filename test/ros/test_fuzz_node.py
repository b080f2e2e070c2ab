"""
Malformed images and calibrations through the node, from its callbacks to what it would publish.

Each image is answered right or dropped with a sentence; the node works on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import time
from typing import Any

from fuzzing import UINT32, fuzz, mostly
from hypothesis import event, given
from hypothesis import strategies as st
from malformed_messages import (
    FORMATS,
    PICTURES,
    camera_infos,
    damaged,
    fault_of_calibration,
    fault_of_file,
    fault_of_image,
    images,
    size_of_file,
)
import numpy as np
import pytest
import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from llm_mde_ros.camera_source import RecentInfos
from llm_mde_ros.conversions import cloud_to_points
from llm_mde_ros.depth_node import DepthNode
from llm_mde_ros.image_messages import COLOR_ENCODINGS
from llm_mde_ros.parameters import DepthNodeParameters

OUTPUTS = ('depth/image', 'depth/camera_info', 'depth/preview', 'confidence', 'points')
LIMIT_MEGAPIXELS = 0.01
HANGS_AFTER_S = 20.0
LONGEST_SENTENCE = 1500
FRAMES = st.sampled_from(['', '/camera', 'another', 'c' * 100_000])
PARAMETERS = st.builds(
    DepthNodeParameters,
    camera_info_timeout_s=st.just(0.0),
    max_megapixels=st.just(LIMIT_MEGAPIXELS),
    image_rectified=st.booleans(),
    depth_encoding=st.sampled_from(['32FC1', '16UC1']),
    points_stride=st.integers(1, 3),
    points_organized=st.booleans(),
    points_color=st.booleans(),
    filters_temporal_enable=st.booleans(),
    filters_median_enable=st.booleans(),
    filters_edge_enable=st.booleans(),
)


class Collector:
    """Listens to everything and keeps what is published."""

    def __init__(self) -> None:
        self.sent: dict[str, Any] = {}

    def subscribers(self) -> dict[str, int]:
        return dict.fromkeys(OUTPUTS, 1)

    def publish(self, messages: dict[str, Any]) -> list[str]:
        self.sent = dict(messages)
        return []

    def destroy(self) -> None:
        pass


class Inside:
    """An active node in this process, whose callbacks are called as its executor would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, node: DepthNode) -> None:
        self.collector, self.node = Collector(), node
        self.sentences: list[str] = []
        monkeypatch.setattr(node, '_warn', lambda kind, sentence: self.sentences.append(sentence))
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        node._outputs.destroy()
        node._outputs = self.collector
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS

    @property
    def parameters(self) -> DepthNodeParameters:
        return self.node.settings

    @parameters.setter
    def parameters(self, parameters: DepthNodeParameters) -> None:
        self.node.settings = parameters

    def send(self, image: Image | CompressedImage, info: CameraInfo | None) -> dict[str, Any]:
        """Return the outputs of an image; nothing when it was dropped with a sentence."""
        self.collector.sent, self.sentences[:] = {}, []
        self.node.worker.infos = RecentInfos()  # of this example alone
        if info is not None:
            self.node._on_camera_info(info)
        done = self._counted + 1
        self.node._on_image(image)
        end_s = time.monotonic() + HANGS_AFTER_S
        while not (self._counted == done and (self.collector.sent or self._is_told)):
            self.node.worker.check()
            assert time.monotonic() < end_s, 'it hangs, or says nothing'
            time.sleep(0.0005)
        assert not (self.collector.sent and self._is_told)
        return self.collector.sent

    @property
    def _counted(self) -> int:
        counters = self.node._counters
        return counters.published + counters.dropped_total

    @property
    def _is_told(self) -> bool:
        return any('dropped' in sentence for sentence in self.sentences)


@pytest.fixture
def inside(
    own_domain: None, monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Path
) -> Iterator[Inside]:
    rclpy.init(args=['--ros-args', '-p', f'model:={tiny_model_dir}', '-p', 'device:=cpu'])
    node = DepthNode()
    try:
        yield Inside(monkeypatch, node)
    finally:
        node.close()
        node.join()
        node.destroy_node()
        rclpy.shutdown()


@st.composite
def calibrations(draw: Any, size: tuple[int, int]) -> CameraInfo | None:
    """Return none, or one that is mostly of this size (width, height)."""
    info = draw(mostly(camera_infos(), st.none()))
    if info is not None and draw(st.integers(0, 3)):
        info.width, info.height = size
    return info


@fuzz(150)
@given(data=st.data())
def test_raw_images_are_answered_right_or_dropped(data: st.DataObject, inside: Inside) -> None:
    image = data.draw(images(COLOR_ENCODINGS))
    check(data, inside, image, (image.width, image.height))


@fuzz(150)
@given(data=st.data())
def test_compressed_images_are_answered_right_or_dropped(
    data: st.DataObject, inside: Inside
) -> None:
    file = data.draw(mostly(damaged(PICTURES), st.binary(max_size=200)))
    image = CompressedImage(format=data.draw(FORMATS), data=file)
    check(data, inside, image, (14, 9))


def check(data: st.DataObject, inside: Inside, image: Any, size: tuple[int, int]) -> None:
    info = data.draw(calibrations(size))
    inside.parameters = data.draw(PARAMETERS)
    image.header.frame_id = data.draw(mostly(st.just('camera'), FRAMES))
    image.header.stamp.sec = data.draw(st.integers(-(2**31), 2**31 - 1))
    image.header.stamp.nanosec = data.draw(mostly(st.integers(0, 999_999_999), UINT32))
    fault, size = judged(image)
    if size is not None:
        rectified = inside.parameters.image_rectified
        fault = fault or fault_of_calibration(info, size, rectified=rectified)
    event(fault.partition(' ')[0])
    outputs = inside.send(image, info)
    assert all(len(sentence) < LONGEST_SENTENCE for sentence in inside.sentences)
    if not outputs:
        return
    assert not fault, 'an output from bad input'
    assert outputs.keys() == set(OUTPUTS)
    for message in outputs.values():
        assert message.header == image.header
    for name in ('depth/image', 'depth/preview', 'confidence', 'depth/camera_info'):
        assert size in (None, (outputs[name].width, outputs[name].height))
    check_numbers(outputs, inside.parameters)


def judged(image: Image | CompressedImage) -> tuple[str, tuple[int, int] | None]:
    """Return what is wrong with an image ('': nothing known), and its width and height."""
    max_pixels = round(1e6 * LIMIT_MEGAPIXELS)
    if isinstance(image, Image):
        return fault_of_image(image, max_pixels=max_pixels), (image.width, image.height)
    file = bytes(image.data)
    return fault_of_file(file, max_pixels=max_pixels), size_of_file(file)


def check_numbers(outputs: dict[str, Any], parameters: DepthNodeParameters) -> None:
    """Every number is one that a robot may rely on, or unknown."""
    depth = outputs['depth/image']
    kind = np.float32 if depth.encoding == '32FC1' else np.uint16
    values = np.frombuffer(depth.data, kind).astype(np.float64)
    values = values / 1000 if kind is np.uint16 else values
    known = values[~np.isnan(values) & (values != 0)]
    assert (known >= parameters.depth_min_m - 0.001).all()
    assert (known <= parameters.depth_max_m + 0.001).all()
    confidence = np.frombuffer(outputs['confidence'].data, np.float32)
    assert ((confidence >= 0) & (confidence <= 1)).all()
    assert (confidence[np.isnan(values) | (values == 0)] == 0).all()
    points, _ = cloud_to_points(outputs['points'])
    assert not np.isinf(points).any()
    info = outputs['depth/camera_info']
    assert np.isfinite([*info.k, *info.p, *info.d, *info.r]).all()
