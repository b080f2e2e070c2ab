"""sensor_msgs/PointCloud2 <-> arrays of points, 12 bytes each, or 16 with colour."""

from collections.abc import Sequence

import cv2
import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from llm_mde_ros.message_data import IS_BIGENDIAN, resize_data

try:
    from sensor_msgs_py.point_cloud2 import read_points
except ImportError:
    read_points = None

_DTYPES = {
    PointField.INT8: 'i1',
    PointField.UINT8: 'u1',
    PointField.INT16: 'i2',
    PointField.UINT16: 'u2',
    PointField.INT32: 'i4',
    PointField.UINT32: 'u4',
    PointField.FLOAT32: 'f4',
    PointField.FLOAT64: 'f8',
}


def empty_cloud(
    height: int, width: int, header: Header, *, color: bool, is_dense: bool = False
) -> PointCloud2:
    """Return a cloud of zeros that is to be filled through packed_points."""
    names = ('x', 'y', 'z', 'rgb') if color else ('x', 'y', 'z')
    point_step = 4 * len(names)
    cloud = PointCloud2(
        header=header,
        height=height,
        width=width,
        fields=[
            PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
            for index, name in enumerate(names)
        ],
        is_bigendian=IS_BIGENDIAN,
        point_step=point_step,
        row_step=point_step * width,
        is_dense=is_dense,
    )
    resize_data(cloud, height * width * point_step)
    return cloud


def packed_points(cloud: PointCloud2) -> np.ndarray:
    """
    Return the memory of a cloud made by empty_cloud, float32 (H, W, 3 or 4).

    x, y, z in metres, NaN where unknown, and the colour as PCL packs it: bits 0x00RRGGBB.
    """
    return np.ndarray((cloud.height, cloud.width, len(cloud.fields)), np.float32, cloud.data)


def fill_cloud(cloud: PointCloud2, planes: Sequence[np.ndarray]) -> None:
    """Put x, y, z and the colour, float32 (H, W) each, into the memory of a cloud."""
    if planes[0].size:
        # OpenCV interleaves four times as fast as strided copies of torch or NumPy.
        cv2.merge(planes, packed_points(cloud))


def packed_color(rgb: np.ndarray) -> np.ndarray:
    """Pack uint8 (H, W, 3) RGB as PCL does: float32 (H, W) of the bits 0x00RRGGBB."""
    bgra = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2BGRA)
    return (bgra.view('<u4')[..., 0] & np.uint32(0xFFFFFF)).view(np.float32)


def cloud_to_points(msg: PointCloud2) -> tuple[np.ndarray, np.ndarray | None]:
    """
    Decode a cloud: points, float32 (H, W, 3), and colours, uint8 (H, W, 3) RGB or None.

    A colour that is not packed into four bytes, as PCL does it, is none.

    sensor_msgs_py reads them where it is installed, but not rows with padding or the other byte
    order: the first it ignores, the second it swaps inside the message.
    """
    names = {field.name for field in msg.fields}
    missing = {'x', 'y', 'z'} - names
    if missing:
        raise ValueError(f'cloud has no field {", ".join(sorted(missing))}, only {sorted(names)}')
    if len(msg.data) < msg.row_step * msg.height or msg.row_step < msg.point_step * msg.width:
        raise ValueError(
            f'cloud data has {len(msg.data)} bytes, too few for {msg.height} rows of row_step '
            f'{msg.row_step} with {msg.width} points of point_step {msg.point_step}'
        )
    _record_dtype(msg)  # refuses fields that sensor_msgs_py ends with other errors on
    if read_points is not None and _is_plain(msg):
        records = read_points(msg).reshape(msg.height, msg.width)
    else:
        records = read_records(msg)
    points = np.stack([records[axis] for axis in 'xyz'], axis=-1).astype(np.float32)
    colors = [name for name in ('rgb', 'rgba') if name in names]
    color = next((name for name in colors if records[name].dtype.itemsize == 4), None)
    if color is None:
        return points, None
    packed = np.ascontiguousarray(records[color]).view(np.uint32)
    return points, np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], -1).astype('u1')


def read_records(msg: PointCloud2) -> np.ndarray:
    """Return the cloud as a structured array (H, W) in native byte order."""
    dtype = _record_dtype(msg)
    strides = (msg.row_step, msg.point_step)
    records = np.ndarray((msg.height, msg.width), dtype, msg.data, strides=strides)
    return records.astype(dtype.newbyteorder('='))


def _record_dtype(msg: PointCloud2) -> np.dtype:
    """Return how a point lies in the data; of a field with several values, the first."""
    order = '>' if msg.is_bigendian else '<'
    _check_fields(msg)
    return np.dtype(
        {
            'names': [field.name for field in msg.fields],
            'formats': [order + _DTYPES[field.datatype] for field in msg.fields],
            'offsets': [field.offset for field in msg.fields],
            'itemsize': msg.point_step,
        }
    )


def _check_fields(msg: PointCloud2) -> None:
    """Refuse fields beyond the point, in Python's integers: NumPy's overflow, then it reads on."""
    unknown = [field.name for field in msg.fields if field.datatype not in _DTYPES]
    if unknown:
        raise ValueError(f'cloud has fields of an unknown datatype: {", ".join(unknown)}')
    names = [field.name for field in msg.fields]
    if len(set(names)) < len(names):
        raise ValueError(f'cloud has a field twice: {", ".join(names)}')
    for field in msg.fields:
        size = int(_DTYPES[field.datatype][1])
        end = field.offset + size * max(field.count, 1)  # old drivers count 0 for one
        if end > msg.point_step:
            raise ValueError(
                f'cloud has {field.name} at byte {field.offset}, {field.count} of {size} bytes, '
                f'beyond its point_step {msg.point_step}'
            )


def _is_plain(msg: PointCloud2) -> bool:
    native_order = bool(msg.is_bigendian) == IS_BIGENDIAN
    one_each = all(field.count == 1 for field in msg.fields)
    return native_order and one_each and msg.row_step == msg.point_step * msg.width
