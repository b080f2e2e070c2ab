"""The `data` field of images and clouds, read and written fast on every release of ROS 2."""

import sys

import numpy as np
from sensor_msgs.msg import Image, PointCloud2

IS_BIGENDIAN = sys.byteorder == 'big'


def resize_data(message: Image | PointCloud2, size: int) -> None:
    """Let the empty data of a message be so many zeros; its setters would copy them twice."""
    data = message.data
    data.append(0)
    data *= size  # in place


def fill_data(message: Image, values: np.ndarray) -> None:
    """Append the bytes of an array to the data of a message."""
    message.data.frombytes(memoryview(np.ascontiguousarray(values).reshape(-1).view(np.uint8)))


def read_pixels(msg: Image, dtype: type, channels: int) -> np.ndarray:
    """
    Return the pixels of an image, (H, W) or (H, W, C), native byte order, row padding removed.

    May share the memory of the message. ValueError when size, step and data do not agree.
    """
    if msg.height < 1 or msg.width < 1:
        raise ValueError(f'image size {msg.width} x {msg.height} is empty')
    wire = np.dtype(dtype).newbyteorder('>' if msg.is_bigendian else '<')
    row_bytes = msg.width * channels * wire.itemsize
    if msg.step < row_bytes:
        raise ValueError(
            f'image step {msg.step} is too small: {msg.width} pixels of {msg.encoding} take '
            f'{row_bytes} bytes; the driver must set step to the bytes of one row'
        )
    if len(msg.data) != msg.step * msg.height:
        raise ValueError(
            f'image data has {len(msg.data)} bytes, but {msg.height} rows of step {msg.step} '
            f'make {msg.step * msg.height}; the message is truncated or its step is wrong'
        )
    rows = np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.step)[:, :row_bytes]
    pixels = np.ascontiguousarray(rows).view(wire).astype(dtype, copy=False)
    shape = (msg.height, msg.width) if channels == 1 else (msg.height, msg.width, channels)
    return pixels.reshape(shape)
