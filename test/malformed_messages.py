"""
Messages that are right, or nearly: what the fuzz tests of conversions and node draw from.

What is wrong with one is judged by its own fields, not by the code under test.
"""

from io import BytesIO
import math
import struct
import warnings
import zlib

import cv2
from fuzzing import UINT32, mostly
from hypothesis import strategies as st
import numpy as np
from PIL import Image as Picture
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest
from std_msgs.msg import Header

BYTES_OF_PIXEL = {
    **{'rgb8': 3, 'bgr8': 3, '8UC3': 3, 'rgba8': 4, 'bgra8': 4, '8UC4': 4, '32FC1': 4},
    **{'mono16': 2, '16UC1': 2, 'yuv422': 2, 'yuv422_yuy2': 2, 'uyvy': 2, 'yuyv': 2},
    **{f'bayer_{order}16': 2 for order in ('rggb', 'bggr', 'gbrg', 'grbg')},
}
GREY_BYTES = ('mono8', '8UC1', *(f'bayer_{order}8' for order in ('rggb', 'bggr', 'gbrg', 'grbg')))
COLOR_BYTES = dict.fromkeys(GREY_BYTES, 1) | {
    name: size for name, size in BYTES_OF_PIXEL.items() if name not in ('16UC1', '32FC1')
}


def fault_of_image(image, *, max_pixels):
    """Say why no colour can come of an image; '' when nothing is known against it."""
    if image.encoding not in COLOR_BYTES:
        return f'unknown encoding {image.encoding!r}'
    if not image.width or not image.height:
        return 'no pixels'
    if image.width * image.height > max_pixels:
        return 'too large'
    if image.step < image.width * COLOR_BYTES[image.encoding]:
        return 'step too small'
    if len(image.data) < image.step * image.height:
        return 'data too short'
    return ''


def fault_of_file(data, *, max_pixels):
    """Say why no colour can come of a compressed image; '' when nothing is known against it."""
    if not data.startswith((b'\x89PNG\r\n\x1a\n', b'\xff\xd8')):
        return 'neither PNG nor JPEG'
    if (b'IEND' if data[:1] == b'\x89' else b'\xff\xd9') not in data:
        return 'cut off'
    width, height = size_of_file(data) or (1, 1)
    return '' if 0 < width * height <= max_pixels else f'of {width} x {height} pixels'


def size_of_file(data):
    """Return width and height as another library reads them; None when it does not."""
    with warnings.catch_warnings():
        warnings.simplefilter('error', Picture.DecompressionBombWarning)
        try:
            with Picture.open(BytesIO(data)) as picture:
                return picture.size
        except (Picture.DecompressionBombError, Picture.DecompressionBombWarning):
            return 2**16, 2**16
        except Exception:  # what Pillow raises for a damaged file is of many kinds
            return None


def fault_of_calibration(info, size, *, rectified):
    """Say why a camera_info is not that of an image of this size (width, height), or ''."""
    if info is None or not (info.k[0] or info.p[0]):
        return ''  # not calibrated: the field of view is used
    is_distorted = any(info.d) and not rectified
    if info.p[0] and not is_distorted:
        numbers = info.p[0], info.p[5], info.p[2], info.p[6]
        skew, last = (info.p[1], info.p[4]), (*info.p[8:10], info.p[10] - 1, info.p[11])
    else:
        numbers = info.k[0], info.k[4], info.k[2], info.k[5]
        skew, last = (info.k[1], info.k[3]), (*info.k[6:8], info.k[8] - 1)
    if not all(map(math.isfinite, numbers)):
        return f'fx, fy, cx, cy are {numbers}'
    if min(numbers[:2]) <= 0:
        return f'fx, fy are {numbers[:2]}'
    if not all(abs(number) < 2e-6 for number in last):
        return f'last row is off by {last}'
    if not all(abs(s) < 0.011 * f for s, f in zip(skew, numbers[:2], strict=True)):
        return f'skew is {skew}'
    if len(info.d) > 14:
        return f'{len(info.d)} coefficients'
    if is_distorted and not all(map(math.isfinite, info.d)):
        return 'coefficients that are no numbers'
    if is_distorted and len(info.d) not in COEFFICIENTS.get(info.distortion_model, ()):
        return f'{len(info.d)} coefficients of {info.distortion_model!r}'
    roi = info.roi
    if bool(roi.width) != bool(roi.height):
        return ''  # CameraInfo.msg does not say what that means
    sides = (roi.width, roi.height) if roi.width else (info.width, info.height)
    binning = max(info.binning_x, 1), max(info.binning_y, 1)
    if tuple(side // bins for side, bins in zip(sides, binning, strict=True)) != size:
        return f'of another size than {size}'
    smaller, larger = sorted(f / bins for f, bins in zip(numbers[:2], binning, strict=True))
    if larger > 2.6 * smaller:
        return f'fx, fy are {numbers[:2]}, binned by {binning}'
    return ''


SIDE = mostly(st.integers(0, 12), UINT32)


@st.composite
def images(draw, encodings):
    """Return images that are right, or nearly: one or another field is not what it should be."""
    encoding = draw(mostly(st.sampled_from(encodings), st.text(max_size=8)))
    height, width = draw(SIDE), draw(SIDE)
    step = width * BYTES_OF_PIXEL.get(encoding, 1) + draw(mostly(st.just(0), st.integers(-2, 9)))
    step = draw(mostly(st.just(min(max(step, 0), 2**32 - 1)), UINT32))
    size = max(0, step * height + draw(mostly(st.just(0), st.integers(-9, 9))))
    noise = np.random.default_rng(draw(st.integers(0, 9)))
    return Image(
        height=height,
        width=width,
        encoding=encoding,
        step=step,
        is_bigendian=draw(st.sampled_from([0, 1, 255])),
        data=noise.bytes(min(size, 10_000)),
    )


def compressed(*makings):
    """Return the files of some pictures: small, so that a change hits what matters."""
    return [cv2.imencode(kind, pixels, options)[1].tobytes() for kind, pixels, *options in makings]


NOISE = np.random.default_rng(3)
COLOR = NOISE.integers(0, 256, (9, 14, 3), np.uint8)
DEEP = NOISE.integers(0, 65536, (9, 14), np.uint16)
GREY = COLOR[..., 0]
PNG_DEPTH = compressed(('.png', DEEP, cv2.IMWRITE_PNG_COMPRESSION, 0), ('.png', DEEP))
PICTURES = PNG_DEPTH + compressed(
    *[('.png', pixels) for pixels in (COLOR, np.dstack([COLOR, GREY]), GREY)],
    *[('.jpg', pixels) for pixels in (COLOR, GREY)],
    ('.jpg', COLOR, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    ('.jpg', COLOR, cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
)
WORDS = [b'\xff\xd0', b'\xff\xc0\0\x11\x08', b'\xff\xd9', b'\xff', b'IHDR', b'IDAT']
CHANGES = ['set', 'set', 'cut', 'double', 'put', 'size', 'end']


@st.composite
def damaged(draw, files):
    """Return a file in which bytes were set, cut out, doubled or put in, or the size changed."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
        at = draw(st.integers(0, 60) | st.integers(0, 2000)) % (len(data) + 1)
        part, change = data[at : at + draw(st.integers(1, 20))], draw(st.sampled_from(CHANGES))
        if change == 'size':
            sides = draw(st.tuples(*[UINT32] * 2) | st.tuples(*[st.integers(0, 300)] * 2))
            set_size(data, *sides)
        elif change == 'set':
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif change == 'cut':
            del data[at : at + len(part)]
        elif change == 'end':
            del data[at:]
        else:
            put_in = st.sampled_from(WORDS) | st.binary(max_size=20)
            data[at:at] = part if change == 'double' else draw(put_in)
    return with_checksums(data) if draw(st.booleans()) else bytes(data)


def set_size(data, width, height):
    """Announce another size in the header, if it is there still."""
    frame = data.find(b'\xff\xc0')
    if data.startswith(b'\x89PNG'):
        data[16:24] = struct.pack('>II', width, height)
    elif frame > 0:
        data[frame + 5 : frame + 9] = struct.pack('>HH', height % 2**16, width % 2**16)


def with_checksums(data):
    """Return a PNG whose chunks have the right checksums, so that their content is looked at."""
    data, at = bytearray(data), 8
    while data.startswith(b'\x89PNG') and at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], 'big')
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack('>I', zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(data)


FORMATS = st.sampled_from(
    ['jpeg', 'png', '', 'rgb8; jpeg compressed rgb8', '32FC1; compressedDepth png', '16UC1', 'rvl']
)


NUMBERS = st.floats() | st.floats(-2000, 2000) | st.integers(-5, 5).map(float)
GOOD_K = [30.0, 0.0, 15.5, 0.0, 31.0, 11.5, 0.0, 0.0, 1.0]
GOOD_P = [28.0, 0.0, 15.0, -2.8, 0.0, 29.0, 11.0, 0.0, 0.0, 0.0, 1.0, 0.0]
MODELS = ['', 'plumb_bob', 'rational_polynomial', 'equidistant', 'fisheye', 'none', 'mei']

COEFFICIENTS = {  # their number, by lens model
    **dict.fromkeys(('', 'plumb_bob', 'rational_polynomial'), (4, 5, 8, 12, 14)),
    **dict.fromkeys(('equidistant', 'fisheye'), (4,)),
}


@st.composite
def nearly(draw, values):
    """Return the numbers with some of them replaced, or others altogether."""
    if draw(mostly(st.just(True), st.just(False))):
        return values
    changed = list(values)
    for _ in range(draw(st.integers(1, 3))):
        changed[draw(st.integers(0, len(values) - 1))] = draw(NUMBERS)
    return changed


@st.composite
def camera_infos(draw):
    roi = RegionOfInterest()
    if draw(st.integers(0, 3)) == 0:
        roi = RegionOfInterest(**{n: draw(SIDE) for n in ('x_offset', 'y_offset')})
        roi.width, roi.height = draw(SIDE), draw(SIDE)
    count = draw(st.sampled_from([4, 5, 8, 12, 14]) | st.integers(0, 15))
    scale = draw(st.sampled_from([0.02, 0.3]))
    lens = st.lists(
        mostly(st.floats(-scale, scale), NUMBERS)
        if draw(st.booleans())
        else st.floats(-scale, scale),
        min_size=count,
        max_size=count,
    )
    return CameraInfo(
        header=Header(frame_id='camera'),
        width=draw(mostly(st.just(32), SIDE)),
        height=draw(mostly(st.just(24), SIDE)),
        distortion_model=draw(mostly(st.sampled_from(MODELS), st.text(max_size=8))),
        d=draw(mostly(lens, st.just([]))),
        k=draw(nearly(GOOD_K)),
        r=draw(nearly(list(np.eye(3).ravel()))),
        p=draw(mostly(nearly(GOOD_P), st.just([0.0] * 12))),
        binning_x=draw(mostly(st.integers(0, 2), SIDE)),
        binning_y=draw(mostly(st.integers(0, 2), SIDE)),
        roi=roi,
    )
