from contextlib import suppress
import math
import struct
import zlib

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage

from llm_mde_core import picture_check
from llm_mde_ros.conversions import compressed_depth_to_depth, compressed_to_rgb

RNG = np.random.default_rng(7)
RGB = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
GREY_RGB = np.dstack([GREY] * 3)
SMOOTH = cv2.resize(RGB, (64, 48), interpolation=cv2.INTER_CUBIC)


def with_alpha(colors):
    return np.dstack([colors, RNG.integers(0, 256, colors.shape[:2], dtype=np.uint8)])


def compress(pixels, extension, image_format):
    _, data = cv2.imencode(extension, pixels)
    return CompressedImage(format=image_format, data=data.tobytes())


@pytest.mark.parametrize('image_format', ['jpeg', 'jpg', 'rgb8; jpeg compressed bgr8', ''])
def test_a_jpeg_becomes_rgb(image_format):
    rgb = compressed_to_rgb(compress(SMOOTH[..., ::-1], '.jpg', image_format))
    assert rgb.shape == (48, 64, 3)
    assert rgb.dtype == np.uint8
    assert np.abs(rgb.astype(int) - SMOOTH).mean() < 6


@pytest.mark.parametrize(
    'image_format', ['png', 'rgb8; png compressed bgr8', 'bgr8; png compressed ', '']
)
def test_a_png_becomes_rgb_exactly(image_format):
    message = compress(RGB[..., ::-1], '.png', image_format)
    np.testing.assert_array_equal(compressed_to_rgb(message), RGB)


def test_a_file_whose_colours_were_swapped_by_convention_is_swapped_back():
    message = compress(RGB, '.png', 'rgb8; png compressed rgb8')
    np.testing.assert_array_equal(compressed_to_rgb(message), RGB)


def test_a_grey_file_and_one_with_alpha_become_rgb():
    grey = compressed_to_rgb(compress(GREY, '.png', 'mono8; png compressed mono8'))
    np.testing.assert_array_equal(grey, GREY_RGB)
    message = compress(with_alpha(RGB[..., ::-1]), '.png', 'png')
    np.testing.assert_array_equal(compressed_to_rgb(message), RGB)


def test_the_orientation_tag_of_a_jpeg_does_not_turn_the_pixels_of_the_camera():
    data = bytes(compress(SMOOTH, '.jpg', 'jpeg').data)
    tag = struct.pack('<HHII', 0x0112, 3, 1, 6)  # orientation: turned by 90 degrees
    exif = b'Exif\0\0' + b'II*\0' + struct.pack('<IH', 8, 1) + tag + bytes(4)
    data = data[:2] + b'\xff\xe1' + struct.pack('>H', len(exif) + 2) + exif + data[2:]
    turned = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert turned.shape == (64, 48, 3)  # the tag works
    assert compressed_to_rgb(CompressedImage(format='jpeg', data=data)).shape == (48, 64, 3)


@pytest.mark.parametrize('extension', ['.jpg', '.png'])
@pytest.mark.parametrize('kept', [0.02, 0.5, 0.99])
def test_a_truncated_file_is_refused(extension, kept):
    message = compress(SMOOTH, extension, extension[1:])
    message.data = message.data[: int(len(message.data) * kept)]
    with pytest.raises(ValueError, match=r'compressed image'):
        compressed_to_rgb(message)


@pytest.mark.parametrize(
    'data', [b'', b'\xff\xd8', b'GIF89a', b'\xff\xd8\xff\xda\xff\xd9', bytes(64)]
)
def test_rubbish_is_refused(data):
    with pytest.raises(ValueError, match='compressed image'):
        compressed_to_rgb(CompressedImage(format='jpeg', data=data))


def test_a_file_that_announces_a_huge_picture_is_refused_before_decoding():
    png = bytearray(compress(RGB, '.png', 'png').data)
    png[16:24] = struct.pack('>II', 100_000, 50_000)
    with pytest.raises(ValueError, match='100000 x 50000 pixels is refused'):
        compressed_to_rgb(CompressedImage(format='png', data=bytes(png)))
    jpeg = bytearray(compress(RGB, '.jpg', 'jpeg').data)
    start = jpeg.index(b'\xff\xc0') + 5
    jpeg[start : start + 4] = struct.pack('>HH', 50_000, 60_000)
    with pytest.raises(ValueError, match='60000 x 50000 pixels is refused'):
        compressed_to_rgb(CompressedImage(format='jpeg', data=bytes(jpeg)))


def test_a_size_hidden_behind_a_marker_without_length_is_refused():
    """Decoders step over such a marker and take the first frame header, not the second."""
    data = bytes(compress(SMOOTH, '.jpg', 'jpeg').data)
    start = data.index(b'\xff\xc0')
    frame = bytearray(data[start : start + 19])
    frame[5:9] = struct.pack('>HH', 6000, 6000)
    decoy = bytes(frame[:5]) + struct.pack('>HH', 8, 8) + bytes(10)
    # Were FF C0 a length, the next segment would be the decoy at the end of the comment.
    padding = bytes(0xFFC0 - len(frame) - 4)
    comment = b'\xff\xfe' + struct.pack('>H', 2 + len(padding) + len(decoy)) + padding + decoy
    for marker in (b'\xff\xd0', b'\xff\x01'):
        bomb = data[:2] + marker + bytes(frame) + comment + data[2:start] + data[start + 19 :]
        with pytest.raises(ValueError, match='broken JPEG'):
            compressed_to_rgb(CompressedImage(format='jpeg', data=bomb))


def chunk(kind, data):
    checksum = struct.pack('>I', zlib.crc32(kind + data))
    return struct.pack('>I', len(data)) + kind + data + checksum


@pytest.mark.parametrize('at', [33, -12])  # the first one after the header, and the last
def test_a_chunk_that_is_longer_than_the_file_is_refused_before_decoding(at: int):
    """OpenCV 4.14 would allocate and clear what the chunk says: 14 seconds for 300 bytes."""
    png = bytearray(compress(RGB, '.png', 'png').data)
    png[at : at + 4] = struct.pack('>I', 0xF0000000)
    with pytest.raises(ValueError, match='broken or cut off PNG'):
        picture_check.checked_picture(bytes(png))


def test_texts_and_profiles_of_a_png_never_reach_the_decoder():
    """It would unpack each of them: 8 MB and a fraction of a second for 8 KB."""
    png = bytes(compress(RGB[..., ::-1], '.png', 'png').data)
    text = chunk(b'zTXt', b'k\0\0' + zlib.compress(bytes(100)))
    profile = chunk(b'iCCP', b'p\0\0' + zlib.compress(bytes(100)))
    message = CompressedImage(format='png', data=png[:33] + text + profile + png[33:])
    assert picture_check.checked_picture(bytes(message.data)) == png
    np.testing.assert_array_equal(compressed_to_rgb(message), RGB)


def test_a_jpeg_with_wrong_bytes_inside_its_scan_is_a_damaged_picture_or_refused():
    """Nothing in a JPEG tells them; what they stood for is lost, the size is not."""
    data = bytes(compress(SMOOTH[..., ::-1], '.jpg', 'jpeg').data)
    sound = compressed_to_rgb(CompressedImage(format='jpeg', data=data))
    damaged = 0
    for at in range(data.index(b'\xff\xda') + 14, len(data) - 22, 20):
        wrong = data[:at] + 20 * b'\x55' + data[at + 20 :]
        with suppress(ValueError):
            rgb = compressed_to_rgb(CompressedImage(format='jpeg', data=wrong))
            assert (rgb.shape, rgb.dtype) == (sound.shape, np.uint8)
            damaged += not np.array_equal(rgb, sound)
    assert damaged


def test_a_jpeg_of_many_scans_is_refused():
    """Each scan of a few bytes costs as much as the whole picture."""
    _, data = cv2.imencode('.jpg', SMOOTH, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    data = data.tobytes()
    scan = data[data.rindex(b'\xff\xda') : -2]
    many = data[:-2] + 60 * scan + data[-2:]
    with pytest.raises(ValueError, match='more than 64 scans'):
        compressed_to_rgb(CompressedImage(format='jpeg', data=many))


def test_the_limit_of_pixels_is_the_callers():
    message = compress(SMOOTH, '.jpg', 'jpeg')
    assert compressed_to_rgb(message, max_pixels=64 * 48).shape == (48, 64, 3)
    with pytest.raises(ValueError, match='64 x 48 pixels is refused as too large: 3071'):
        compressed_to_rgb(message, max_pixels=64 * 48 - 1)
    depth = compress(np.ones((48, 64), np.uint16), '.png', '16UC1; compressedDepth png')
    with pytest.raises(ValueError, match='64 x 48 pixels is refused as too large'):
        compressed_depth_to_depth(depth, max_pixels=64 * 48 - 1)


@pytest.mark.parametrize(('a', 'b'), [(math.nan, 0), (math.inf, 0), (0, 0), (-5, 0), (9, 1)])
def test_quantised_depth_with_impossible_constants_is_refused(a, b):
    message = compress(np.ones((2, 2), np.uint16), '.png', '32FC1; compressedDepth png')
    message.data = struct.pack('<iff', 0, a, b) + bytes(message.data)
    with pytest.raises(ValueError, match='quantised with'):
        compressed_depth_to_depth(message)


def test_the_size_of_a_jpeg_is_found_behind_other_segments():
    data = bytes(compress(SMOOTH, '.jpg', 'jpeg').data)
    comment, huffman, fill = b'\xff\xfe\0\x05abc', b'\xff\xc4\0\x07abcde', b'\xff\xff'
    data = data[:2] + comment + huffman + fill + data[2:]
    assert picture_check._jpeg_size(data) == (64, 48)


def test_a_progressive_jpeg_is_read():
    _, data = cv2.imencode('.jpg', SMOOTH[..., ::-1], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert picture_check._jpeg_size(data.tobytes()) == (64, 48)
    assert compressed_to_rgb(CompressedImage(data=data.tobytes())).shape == (48, 64, 3)


def test_depth_is_read_from_a_png_of_millimetres():
    pixels = np.array([[0, 1500], [65535, 1]], np.uint16)
    expected = [[np.nan, 1.5], [65.535, 0.001]]
    plain = compress(pixels, '.png', '16UC1; png compressed ')
    np.testing.assert_allclose(compressed_depth_to_depth(plain), expected)
    plain.format = '16UC1; compressedDepth png'
    plain.data = bytes(12) + bytes(plain.data)
    np.testing.assert_allclose(compressed_depth_to_depth(plain), expected)


def test_depth_is_read_from_a_png_of_quantised_inverse_metres():
    depth_m = np.array([[0.5, 2.0, 10.0]], np.float32)
    a, b = 100.0 * 101, 1 - 100.0 * 101 / 10.0  # image_transport's, for depth up to 10 m
    pixels = np.rint(a / depth_m + b).astype(np.uint16)
    message = compress(np.append(pixels, [[0]], axis=1).astype(np.uint16), '.png', '')
    message.format = '32FC1; compressedDepth png'
    message.data = struct.pack('<iff', 0, a, b) + bytes(message.data)
    np.testing.assert_allclose(
        compressed_depth_to_depth(message), [[0.5, 2.0, 10.0, np.nan]], rtol=1e-3
    )


@pytest.mark.parametrize(
    ('message', 'reason'),
    [
        (
            CompressedImage(format='16UC1; compressedDepth rvl', data=bytes(40)),
            'rvl.*not supported',
        ),
        (CompressedImage(format='16UC1; compressedDepth', data=bytes(40)), 'holds no png'),
        (compress(RGB, '.png', '16UC1; compressedDepth'), 'uint8 pixels of shape'),
    ],
)
def test_compressed_depth_that_cannot_be_read_is_refused(message, reason):
    with pytest.raises(ValueError, match=reason):
        compressed_depth_to_depth(message)
