"""Malformed messages of another sensor become a sentence, not an exception or a wrong figure."""

from __future__ import annotations

import math
from typing import Any

from fuzzing import UINT32, fuzz
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from sensor_msgs.msg import Image, LaserScan, PointCloud2, PointField
from std_msgs.msg import Header
import torch

from llm_mde_core.geometry import Camera
from llm_mde_ros.extrinsics import FrameTransforms
from llm_mde_ros.live_accuracy import LiveAccuracy
from llm_mde_ros.reference_settings import ReferenceSettings

CAMERA = Camera(width=64, height=48, fx=60.0, fy=60.0, cx=31.5, cy=23.5)
SETTINGS = ReferenceSettings('/sensor', '0 0 0 0 0 0', reference_correct=True)
NUMBERS = st.floats(width=32)
WHOLE = st.sampled_from([0, 1, 2, 2**16, 2**31 - 1, 2**31, 2**32 - 1]) | UINT32
FLOATS = {PointField.FLOAT32: 'f4', PointField.FLOAT64: 'f8'}
NOISE = st.integers(0, 9).map(np.random.default_rng)


@st.composite
def scans(draw: Any) -> LaserScan:
    """Return a scan of what is ahead."""
    count = draw(st.sampled_from([0, 1, 40, 401]))
    ranges = draw(NOISE).uniform(0.5, 9.0, count)
    ranges[:: draw(st.sampled_from([1, 2, 7, 500]))] = draw(NUMBERS)
    return LaserScan(
        angle_min=-1.0,
        angle_increment=2.0 / max(count, 1),
        range_min=0.05,
        range_max=30.0,
        ranges=ranges.astype(np.float32).tolist(),
    )


@st.composite
def clouds(draw: Any) -> PointCloud2:
    """Return a cloud of points ahead, as one of the layouts that drivers use."""
    height, width = draw(st.sampled_from([(1, 2), (1, 300), (12, 25), (0, 0), (1, 0)]))
    kind = draw(st.sampled_from(list(FLOATS)))
    order = draw(st.sampled_from('<>'))
    names = draw(st.permutations(['x', 'y', 'z', *draw(st.sampled_from([[], ['rgb']]))]))
    size = int(FLOATS[kind][1])
    point_step = size * len(names) + draw(st.sampled_from([0, 0, 4, 20]))
    row_step = point_step * width + draw(st.sampled_from([0, 0, 8]))
    fields = [
        PointField(name=name, offset=size * i, datatype=kind, count=1)
        for i, name in enumerate(names)
    ]
    points = np.zeros((height, width, point_step), np.uint8)
    number = order + FLOATS[kind]
    noise = draw(NOISE)
    for i in range(len(names)):
        values = noise.uniform(1.0, 5.0, (height, width, 1)).astype(number)
        points[..., size * i : size * (i + 1)] = values.view(np.uint8)
    rows = np.zeros((height, row_step), np.uint8)
    rows[:, : width * point_step] = points.reshape(height, width * point_step)
    return PointCloud2(
        height=height,
        width=width,
        fields=fields,
        is_bigendian=order == '>',
        point_step=point_step,
        row_step=row_step,
        data=rows.tobytes(),
    )


@st.composite
def depth_images(draw: Any) -> Image:
    """Return the depth image of a camera of the same view."""
    encoding, kind, largest = draw(st.sampled_from([('32FC1', 'f4', 9.0), ('16UC1', 'u2', 9000)]))
    height, width = draw(st.sampled_from([(48, 64), (24, 32), (3, 4), (96, 128)]))
    order = draw(st.sampled_from('<>'))
    values = draw(NOISE).uniform(0.1 * largest, largest, (height, width)).astype(order + kind)
    return Image(
        height=height,
        width=width,
        encoding=encoding,
        step=values.strides[0],
        is_bigendian=int(order == '>'),
        data=values.tobytes(),
    )


@st.composite
def spoiled(draw: Any, sound: st.SearchStrategy) -> Any:
    """Return a sound message in which no, one or two values were made what they should not be."""
    message = draw(sound)
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 2]))):
        holder = message
        if isinstance(message, PointCloud2) and message.fields and draw(st.booleans()):
            holder = draw(st.sampled_from(message.fields))
        name = draw(st.sampled_from(sorted(VALUES[type(holder)])))
        if name == 'data':
            message.data = message.data[: draw(st.integers(0, len(message.data)))]
        elif name == 'offset':
            step = message.point_step
            around = st.sampled_from([0, 4, 8, max(step - 4, 0), step, 2**31 - 1, 2**32 - 1])
            holder.offset = draw(around | WHOLE)
        else:
            setattr(holder, name, draw(VALUES[type(holder)][name]))
    return message


VALUES: dict[type, dict[str, Any]] = {  # what is spoiled, and with what
    LaserScan: dict.fromkeys(('angle_min', 'angle_increment', 'range_min', 'range_max'), NUMBERS),
    PointCloud2: {
        **dict.fromkeys(('height', 'width', 'point_step', 'row_step'), WHOLE),
        'is_bigendian': st.booleans(),
        'data': None,
    },
    PointField: {
        'name': st.sampled_from(['x', 'y', 'z', 'rgb', '']),
        'offset': None,
        'datatype': st.integers(0, 9) | st.just(255),
        'count': WHOLE,
    },
    Image: {
        **dict.fromkeys(('height', 'width', 'step'), WHOLE),
        'encoding': st.sampled_from(['32FC1', '16UC1', 'mono16', 'rgb8', '']),
        'is_bigendian': st.sampled_from([0, 1, 255]),
        'data': None,
    },
}


def compare(message: Any) -> LiveAccuracy:
    """Return the accuracy of a wall at 2 m, held against a message."""
    message.header = Header(frame_id='camera')
    accuracy = LiveAccuracy(FrameTransforms(None))
    accuracy.add(message)
    wall = torch.full((48, 64), 2.0)
    accuracy.compare(
        wall,
        published=wall,
        camera=CAMERA,
        header=Header(frame_id='camera'),
        settings=SETTINGS,
        limits_m=(0.1, 20.0),
    )
    return accuracy


@fuzz(50)
@given(scans() | clouds() | depth_images())
def test_a_sound_message_is_understood(message: Any) -> None:
    accuracy = compare(message)
    assert accuracy.figures().samples or 'are in the image' in accuracy.verdict()[1]


@fuzz(300)
@given(spoiled(scans()) | spoiled(clouds()) | spoiled(depth_images()))
def test_no_message_ends_the_thread_or_makes_a_figure_or_depth_that_is_no_number(
    message: Any,
) -> None:
    accuracy = compare(message)
    figures = accuracy.figures()
    assert figures.samples == 0 or math.isfinite(figures.abs_rel + figures.bias)
    corrected = accuracy.correct(
        torch.tensor([2.0]), camera=CAMERA, header=Header(frame_id='camera'), settings=SETTINGS
    )
    assert np.isfinite(corrected.numpy()).all()
    assert accuracy.verdict()[1]
