"""What a JPEG or PNG says of itself, read before a decoder allocates memory for it."""

import struct

MAX_PIXELS = 2**24  # larger pictures are refused before they are decoded
MAX_SCANS = 64  # of a progressive JPEG, which has about ten; each costs as much as a picture
PNG_START = b'\x89PNG\r\n\x1a\n'
_PNG_HEADER = b'\0\0\0\rIHDR'
_PNG_PICTURE = (b'IHDR', b'PLTE', b'IDAT', b'IEND')
_JPEG_START, _JPEG_SCAN, _JPEG_END = b'\xff\xd8', b'\xff\xda', b'\xff\xd9'
_JPEG_NO_FRAME_HEADER = (0xC4, 0xC8, 0xCC)  # of the markers C0 to CF; the others hold the size
# Decoders step over these two bytes; whoever reads a length after them looks for the size in
# another place than the decoder does, and a small picture there would let a huge one pass.
_JPEG_WITHOUT_LENGTH = (0x00, 0x01, *range(0xD0, 0xDA))


def checked_picture(data: bytes, *, max_pixels: int = MAX_PIXELS) -> bytes:
    """
    Return what of a JPEG or PNG may be given to a decoder.

    ValueError for another format, a broken or cut off one, and one of more pixels or scans.
    """
    data, (width, height) = _checked(data)
    if width * height > max_pixels:
        raise ValueError(
            f'compressed image of {width} x {height} pixels is refused as too large: '
            f'{max_pixels} pixels are allowed'
        )
    return data


def _checked(data: bytes) -> tuple[bytes, tuple[int, int]]:
    """Return what may be given to the decoder, and width and height that its header announces."""
    if data.startswith(PNG_START):
        return _picture_of_png(data)
    if data.startswith(_JPEG_START):
        # Some releases of OpenCV would decode the half that is there.
        if _JPEG_END not in data[data.rfind(_JPEG_SCAN) :]:
            raise ValueError(f'compressed image is a JPEG cut off after {len(data)} bytes')
        if data.count(_JPEG_SCAN) > MAX_SCANS:
            raise ValueError(f'compressed image is a JPEG of more than {MAX_SCANS} scans')
        return data, _jpeg_size(data)
    raise ValueError(
        f'compressed image begins with {data[:8]!r}, which is neither JPEG nor PNG; '
        'use the compressed transport of image_transport, not theora or compressedDepth'
    )


def _picture_of_png(data: bytes) -> tuple[bytes, tuple[int, int]]:
    """
    Return a PNG without texts, profiles and animation, and its width and height.

    OpenCV 4.14 unpacks each text, and takes gigabytes for a chunk that says that it has them.
    """
    parts, position, kind = [PNG_START], len(PNG_START), b''
    while kind != b'IEND' and position + 12 <= len(data):  # length, kind and checksum
        length, kind = struct.unpack_from('>I4s', data, position)
        end = position + 12 + length
        if kind in _PNG_PICTURE:
            parts.append(data[position:end])
        position = end
    if kind != b'IEND' or position > len(data) or not data.startswith(_PNG_HEADER, 8):
        raise ValueError(f'compressed image of {len(data)} bytes is a broken or cut off PNG')
    return b''.join(parts), struct.unpack_from('>II', data, 16)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    position = len(_JPEG_START)
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in _JPEG_WITHOUT_LENGTH:
            break
        if 0xC0 <= marker <= 0xCF and marker not in _JPEG_NO_FRAME_HEADER:
            height, width = struct.unpack_from('>HH', data, position + 5)
            return width, height
        position += 2 + struct.unpack_from('>H', data, position + 2)[0]
    raise ValueError(f'compressed image of {len(data)} bytes is a broken JPEG without a size')
