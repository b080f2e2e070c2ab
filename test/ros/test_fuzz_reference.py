"""Malformed messages of another sensor become a sentence, not an exception or a wrong figure."""

import math

from hypothesis import HealthCheck, given, settings
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
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NUMBERS = st.floats(width=32)
SMALL = st.integers(0, 40)
WHOLE = st.one_of(SMALL, st.integers(0, 2**32 - 1))

scans = st.builds(
    LaserScan,
    angle_min=NUMBERS,
    angle_increment=NUMBERS,
    range_min=NUMBERS,
    range_max=NUMBERS,
    ranges=st.lists(NUMBERS, max_size=60),
)
fields = st.builds(
    PointField,
    name=st.sampled_from(['x', 'y', 'z', 'rgb', '']),
    offset=WHOLE,
    datatype=st.integers(0, 9),
    count=WHOLE,
)
sound_fields = st.just(
    [PointField(name=n, offset=4 * i, datatype=7, count=1) for i, n in enumerate('xyz')]
)
clouds = st.builds(
    PointCloud2,
    height=WHOLE,
    width=WHOLE,
    fields=st.one_of(sound_fields, st.lists(fields, max_size=5)),
    is_bigendian=st.booleans(),
    point_step=WHOLE,
    row_step=WHOLE,
    data=st.binary(max_size=600),
)
images = st.builds(
    Image,
    height=WHOLE,
    width=WHOLE,
    encoding=st.sampled_from(['32FC1', '16UC1', 'mono16', 'rgb8', '']),
    step=WHOLE,
    is_bigendian=st.integers(0, 1),
    data=st.binary(max_size=600),
)


@MANY
@given(st.one_of(scans, clouds, images))
def test_no_message_ends_the_thread_or_makes_a_figure_or_depth_that_is_no_number(message):
    message.header = Header(frame_id='camera')
    accuracy = LiveAccuracy(FrameTransforms(None))
    accuracy.add(message)
    accuracy.compare(
        torch.full((48, 64), 2.0),
        camera=CAMERA,
        header=Header(frame_id='camera'),
        settings=SETTINGS,
        limits_m=(0.1, 20.0),
    )
    figures = accuracy.figures()
    assert figures.samples == 0 or math.isfinite(figures.abs_rel + figures.bias)
    corrected = accuracy.correct(
        torch.tensor([2.0]), camera=CAMERA, header=Header(frame_id='camera'), settings=SETTINGS
    )
    assert np.isfinite(corrected.numpy()).all()
    assert accuracy.verdict()[1]
