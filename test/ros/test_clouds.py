import struct

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from llm_mde_ros import clouds
from llm_mde_ros.conversions import (
    cloud_to_points,
    empty_cloud,
    fill_cloud,
    packed_color,
    packed_points,
)

RNG = np.random.default_rng(7)
RGB = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.fixture
def header():
    header = Header(frame_id='camera_optical')
    header.stamp.sec, header.stamp.nanosec = 17, 250_000_001
    return header


def make_points():
    points = RNG.uniform(-3, 3, (6, 8, 3)).astype(np.float32)
    points[1, 2] = points[4, 0] = np.nan
    return points


def make_cloud(points, rgb, header):
    """Return the cloud of points and colours."""
    height, width, _ = points.shape
    cloud = empty_cloud(height, width, header, color=rgb is not None)
    planes = [*np.moveaxis(points, -1, 0)]
    if rgb is not None:
        planes.append(packed_color(rgb))
    fill_cloud(cloud, planes)
    return cloud


def field_table(message):
    return [(f.name, f.offset, f.datatype, f.count) for f in message.fields]


def test_an_organised_coloured_cloud(header):
    points = make_points()
    cloud = make_cloud(points, RGB, header)
    assert cloud.header == header
    assert (cloud.height, cloud.width) == (6, 8)
    assert (cloud.point_step, cloud.row_step, len(cloud.data)) == (16, 128, 768)
    assert not cloud.is_dense
    float32 = PointField.FLOAT32
    names = ['x', 'y', 'z', 'rgb']
    assert field_table(cloud) == [(name, 4 * i, float32, 1) for i, name in enumerate(names)]
    read_points, read_rgb = cloud_to_points(cloud)
    np.testing.assert_array_equal(read_points, points)
    np.testing.assert_array_equal(read_rgb, RGB)


def test_colour_is_packed_into_the_bytes_that_pcl_reads(header):
    rgb = np.array([[[0x11, 0x22, 0x33]]], np.uint8)
    cloud = make_cloud(np.zeros((1, 1, 3), np.float32), rgb, header)
    (packed,) = struct.unpack_from('>I' if cloud.is_bigendian else '<I', bytes(cloud.data), 12)
    assert packed == 0x112233


def test_a_dense_cloud_without_colour(header):
    points = make_points()[:1]
    cloud = empty_cloud(1, 8, header, color=False, is_dense=True)
    packed_points(cloud)[:] = points
    assert (cloud.point_step, cloud.row_step, len(cloud.data)) == (12, 96, 96)
    assert cloud.is_dense
    assert [field.name for field in cloud.fields] == ['x', 'y', 'z']
    read_points, read_rgb = cloud_to_points(cloud)
    assert read_rgb is None
    np.testing.assert_array_equal(read_points, points)


def test_a_cloud_without_any_point(header):
    cloud = empty_cloud(1, 0, header, color=True, is_dense=True)
    assert packed_points(cloud).shape == (1, 0, 4)
    assert (cloud.height, cloud.width, cloud.row_step, len(cloud.data)) == (1, 0, 0, 0)
    points, rgb = cloud_to_points(cloud)
    assert points.shape == rgb.shape == (1, 0, 3)


def make_foreign_cloud(*, big_endian, point_step=24, padding=8):
    """Return a cloud as another program may lay it out: gaps, colour first, as an integer."""
    dtype = np.dtype(
        {
            'names': ['rgb', 'x', 'y', 'z'],
            'formats': ['u4', 'f4', 'f4', 'f4'],
            'offsets': [0, 4, 8, 12],
            'itemsize': point_step,
        }
    ).newbyteorder('>' if big_endian else '<')
    records = np.zeros((6, 8), dtype)
    points = make_points()
    for index, axis in enumerate('xyz'):
        records[axis] = points[..., index]
    red, green, blue = np.moveaxis(RGB.astype(np.uint32), -1, 0)
    records['rgb'] = 0xFF000000 | red << 16 | green << 8 | blue
    rows = records.view(np.uint8).reshape(6, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xAB)
    fields = [
        PointField(name=name, offset=4 * index, datatype=datatype, count=1)
        for index, (name, datatype) in enumerate(
            [('rgb', PointField.UINT32), *((axis, PointField.FLOAT32) for axis in 'xyz')]
        )
    ]
    cloud = PointCloud2(
        height=6,
        width=8,
        fields=fields,
        is_bigendian=big_endian,
        point_step=point_step,
        row_step=rows.shape[1],
        data=rows.tobytes(),
    )
    return cloud, points


@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize(('point_step', 'padding'), [(16, 0), (24, 0), (16, 8), (24, 8)])
def test_a_cloud_with_another_layout_is_read(big_endian, point_step, padding):
    cloud, points = make_foreign_cloud(
        big_endian=big_endian, point_step=point_step, padding=padding
    )
    before = bytes(cloud.data)
    read_points, read_rgb = cloud_to_points(cloud)
    np.testing.assert_array_equal(read_points, points)
    np.testing.assert_array_equal(read_rgb, RGB)
    assert bytes(cloud.data) == before


def test_sensor_msgs_py_and_numpy_read_clouds_alike(header):
    point_cloud2 = pytest.importorskip('sensor_msgs_py.point_cloud2')
    cloud = make_cloud(make_points(), RGB, header)
    expected = point_cloud2.read_points(cloud).reshape(6, 8)
    records = clouds.read_records(cloud)
    for name in ('x', 'y', 'z', 'rgb'):
        np.testing.assert_array_equal(records[name].view('u4'), expected[name].view('u4'))


def test_a_malformed_cloud_is_refused_with_the_reason(header):
    cloud = make_cloud(make_points(), None, header)
    cloud.data = cloud.data[:-1]
    with pytest.raises(ValueError, match='575 bytes, too few for 6 rows of row_step 96'):
        cloud_to_points(cloud)
    cloud.fields = cloud.fields[:2]
    with pytest.raises(ValueError, match=r"no field z, only \['x', 'y'\]"):
        cloud_to_points(cloud)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'offset': 2**31 - 1}, 'z at byte 2147483647, 1 of 4 bytes, beyond its point_step 12'),
        ({'offset': 2**31 - 4}, 'z at byte 2147483644'),
        ({'offset': 2**32 - 1}, 'z at byte 4294967295'),
        ({'offset': 9}, 'z at byte 9, 1 of 4 bytes, beyond its point_step 12'),
        ({'count': 2}, 'z at byte 8, 2 of 4 bytes'),
        ({'count': 2**32 - 1}, 'z at byte 8, 4294967295 of 4 bytes'),
        ({'datatype': PointField.FLOAT64}, 'z at byte 8, 1 of 8 bytes'),
        ({'datatype': 0}, 'unknown datatype: z'),
        ({'datatype': 9}, 'unknown datatype: z'),
    ],
)
@pytest.mark.parametrize('big_endian', [False, True])
def test_a_field_beyond_its_point_is_refused_before_any_is_read(
    header, changes, message, big_endian
):
    cloud = make_cloud(make_points()[:1, :2], None, header)
    cloud.is_bigendian = big_endian
    for name, value in changes.items():
        setattr(cloud.fields[2], name, value)
    with pytest.raises(ValueError, match=message):
        cloud_to_points(cloud)
    with pytest.raises(ValueError, match=message):
        clouds.read_records(cloud)


def test_a_field_that_ends_with_its_point_is_read_also_where_it_counts_none(header):
    points = make_points()[:1, :2]
    cloud = make_cloud(points, None, header)
    cloud.fields[2].count = 0
    np.testing.assert_array_equal(cloud_to_points(cloud)[0], points)


def test_fields_of_one_name_are_refused(header):
    cloud = make_cloud(make_points(), RGB, header)
    cloud.fields[3].name = 'x'
    with pytest.raises(ValueError, match='field twice: x, y, z, x'):
        cloud_to_points(cloud)


@pytest.mark.parametrize('datatype', [PointField.UINT8, PointField.UINT16])
def test_a_colour_that_is_not_of_four_bytes_is_none(header, datatype):
    points = make_points()
    cloud = make_cloud(points, RGB, header)
    cloud.fields[3].datatype = datatype
    read_points, read_rgb = cloud_to_points(cloud)
    np.testing.assert_array_equal(read_points, points)
    assert read_rgb is None


def test_a_cloud_survives_the_wire(header):
    cloud = make_cloud(make_points(), RGB, header)
    assert deserialize_message(serialize_message(cloud), PointCloud2) == cloud
