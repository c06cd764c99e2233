"""JPEG through libjpeg-turbo: its headers, its pixels, and the pixels of a part."""

import sys
from typing import NamedTuple

import simplejpeg
from PIL import ExifTags, Image

from effnetv2_jax.data.pictures.box import Box, Pixels
from effnetv2_jax.data.pictures.limits import MAX_SCANS
from effnetv2_jax.data.record import DecodeError

_BASELINE_FRAME = 0xC0
_START_OF_SCAN = 0xDA
_SCAN = bytes([0xFF, _START_OF_SCAN])
_END_OF_IMAGE = b"\xff\xd9"


class JpegHeader(NamedTuple):
    """What stands before a JPEG's pixels."""

    orientation: int
    """EXIF's, 1 to 8 unless it is wrong; 1 where there is none."""
    size_at: int | None
    """Where two bytes of height and two of width stand; None if the picture is not baseline, or
    comes in several scans."""


def read_header(encoded: bytes) -> JpegHeader | None:
    """Walks the headers; opening the picture a second time, or a search, would cost far more.

    None for what is no JPEG.
    """
    if not simplejpeg.is_jpeg(encoded):
        return None
    start, orientation, frame = 2, None, None
    while (
        start + 4 < len(encoded)
        and encoded[start] == 0xFF
        and (marker := encoded[start + 1]) != _START_OF_SCAN
    ):
        end = start + 2 + int.from_bytes(encoded[start + 2 : start + 4])
        if marker == _BASELINE_FRAME:
            frame = start
        elif orientation is None and encoded[start + 4 : start + 10] == b"Exif\0\0":
            orientation = _orientation(encoded[start + 4 : end])
        start = end
    if frame is None or encoded[start + 4 : start + 5] != encoded[frame + 9 : frame + 10]:
        return JpegHeader(orientation or 1, None)
    return JpegHeader(orientation or 1, frame + 5)


def check_scans(encoded: bytes) -> None:
    """Raises a DecodeError for a JPEG with too many scans."""
    # Within a scan's data, a byte of 255 has a zero behind it.
    scans = encoded.count(_SCAN)
    if scans > MAX_SCANS:
        raise DecodeError(f"it has {scans} scans, more than {MAX_SCANS}")


def decode_jpeg(encoded: bytes, max_pixels: int) -> Pixels | None:
    """All pixels; None where libjpeg-turbo refuses or warns, and Pillow has to judge."""
    try:
        if _size(encoded, max_pixels) is None:
            return None
        return simplejpeg.decode_jpeg(encoded, colorspace="RGB")
    except ValueError:
        return None


def size_for_parts(encoded: bytes, header: JpegHeader, max_pixels: int) -> tuple[int, int] | None:
    """Height and width of a JPEG that `decode_part` can decode in parts.

    None for others, and for what may have lost its end, which decoding the whole refuses.
    """
    start = header.size_at
    if start is None or not encoded.endswith(_END_OF_IMAGE):
        return None
    try:
        size = _size(encoded, max_pixels)
    except ValueError:
        return None
    if size is None or encoded[start : start + 4] != size[0].to_bytes(2) + size[1].to_bytes(2):
        return None
    return size


def decode_part(encoded: bytes, header: JpegHeader, box: Box) -> Pixels | None:
    """A part of a JPEG that has a `size_for_parts`: libjpeg is given a height that ends below it.

    None where libjpeg-turbo refuses it, or nothing would be saved.
    """
    start = header.size_at
    assert start is not None
    # Smooth upsampling of chroma looks a row of chroma, thus two rows of pixels, further.
    rows = box.top + box.height + 2
    if rows >= int.from_bytes(encoded[start : start + 2]):
        return None
    shortened = bytearray(encoded)
    shortened[start : start + 2] = rows.to_bytes(2)
    try:
        # Not strict: libjpeg warns of the data of the rows left out.
        return box.cut(simplejpeg.decode_jpeg(shortened, colorspace="RGB", strict=False))
    except ValueError:
        return None


def stored_size(encoded: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG; None for CMYK, and where libjpeg-turbo refuses the headers."""
    try:
        return _size(encoded, sys.maxsize)
    except ValueError:
        return None


def scaled_size(size: tuple[int, int], least: int) -> tuple[int, int]:
    """The smallest height and width to which libjpeg scales a picture and which are enough.

    Args:
      least: pixels on the short side; where the whole has fewer, the whole is meant.
    """
    height, width = size
    sizes = ((-(-height * part // 8), -(-width * part // 8)) for part in range(1, 9))
    return next((size for size in sizes if min(size) >= least), size)


def decode_scaled(encoded: bytes, size: tuple[int, int]) -> Pixels:
    """A JPEG at a size that `scaled_size` found, of which libjpeg computes no more than that.

    Raises:
      ValueError: libjpeg-turbo refuses it or warns.
    """
    height, width = size
    return simplejpeg.decode_jpeg(encoded, colorspace="RGB", min_height=height, min_width=width)


def _size(encoded: bytes, max_pixels: int) -> tuple[int, int] | None:
    """Height and width of what libjpeg-turbo is to decode; None for CMYK and what is too large.

    Raises:
      ValueError: libjpeg-turbo refuses the headers.
    """
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(encoded)
    if colorspace in ("CMYK", "YCCK") or height * width > max_pixels:
        return None
    return height, width


def _orientation(exif: bytes) -> int:
    tags = Image.Exif()
    try:
        tags.load(exif)
    except Exception:
        # The picture itself is sound: a damaged tag must not cost it.
        return 1
    return tags.get(ExifTags.Base.Orientation, 1)
