"""Encoded pictures to `uint8` RGB arrays."""

import io
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageChops, TiffImagePlugin

from effnetv2_jax.data.record import DecodeError

Pixels = NDArray[np.uint8]

MAX_PIXELS = 2**26
"""Larger pictures are refused by what their header says, 67 megapixels being the largest."""
MAX_BYTES = 2**29
"""Larger files are refused."""
PEAK_BYTES_PER_PIXEL = 20
"""What decoding takes at its worst, beside three times the file, thus 1.3 GB for `MAX_PIXELS`: a
transparent WebP, of which libwebp keeps two frames and Pillow two copies. Baseline JPEG takes 3, a
progressive one 9 (CMYK: 12), and the rest at most 9."""
MAX_SCANS = 100
"""A JPEG with more is refused: a scan can be empty, and take as long as a whole one."""

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF")
"""What is read, as Pillow calls it. It reads others with no bound on memory, or by programs."""

_PIECE_PIXELS = 2**20
_ORIENTATION_TAG = 0x0112
_BASELINE_FRAME = 0xC0
_START_OF_SCAN = 0xDA
_SCAN = bytes([0xFF, _START_OF_SCAN])
_END_OF_IMAGE = b"\xff\xd9"

_TRANSPOSED = (5, 6, 7, 8)
_UPSIDE_DOWN = (3, 4, 7, 8)
_MIRRORED = (2, 3, 6, 7)
"""EXIF orientations; what is transposed is so first."""


class Box(NamedTuple):
    """A rectangle of whole pixels, inside the picture and not empty."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, pixels: Pixels) -> Pixels:
        """The pixels inside, as a view."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]


def decode(
    encoded: bytes, *, exif: bool = False, part: Callable[[int, int], Box] | None = None
) -> Pixels:
    """Decodes a picture in any of the `FORMATS`; of an animation, its first frame.

    JPEG goes through libjpeg-turbo with accurate DCT and smooth chroma upsampling. Grey becomes
    RGB, transparency is laid over white, of 16-bit channels the high byte counts (as in
    TensorFlow's decoder), and CMYK is converted without a colour profile.

    Args:
      encoded: the file's bytes.
      exif: turn the picture as its EXIF orientation says.
      part: gives the part that is wanted for the picture's height and width, turned if `exif`; it
        may be called twice. Its pixels do not depend on whether the rest is decoded, and of
        baseline JPEG the rows below it are not: damage there, or damage that libjpeg can read
        past, is not looked into.

    Returns:
      uint8 [height, width, 3], RGB, of the picture or its part; possibly a view that is not
      contiguous.

    Raises:
      DecodeError: it is no picture, is damaged, has no 8- or 16-bit channels, or exceeds
        `MAX_PIXELS`, `MAX_BYTES` or `MAX_SCANS`. Nothing else is raised, and memory is bounded by
        `PEAK_BYTES_PER_PIXEL`, whatever the bytes are.
    """
    if not encoded:
        raise DecodeError("it is empty")
    if len(encoded) > MAX_BYTES:
        raise DecodeError(f"it has {len(encoded):,} bytes, more than {MAX_BYTES:,}")
    pixels = None
    if simplejpeg.is_jpeg(encoded):
        headers = _read_headers(encoded)
        if headers.size_at is None:
            _check_scans(encoded)
        elif part:
            found = _decode_rows(encoded, headers, exif, part)
            if found is not None:
                return found
        pixels, orientation = _decode_jpeg(encoded), headers.orientation
    if pixels is None:
        pixels, orientation = _decode_other(encoded)
    if exif:
        pixels = _turn(pixels, orientation)
    return part(*pixels.shape[:2]).cut(pixels) if part else pixels


def _check_scans(encoded: bytes) -> None:
    # Within a scan's data, a byte of 255 has a zero behind it.
    scans = encoded.count(_SCAN)
    if scans > MAX_SCANS:
        raise DecodeError(f"it has {scans} scans, more than {MAX_SCANS}")


def _decode_jpeg(encoded: bytes) -> Pixels | None:
    """The fast path; None where libjpeg-turbo refuses or warns, and Pillow has to judge."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(encoded)
        if colorspace in ("CMYK", "YCCK") or height * width > MAX_PIXELS:
            return None
        return simplejpeg.decode_jpeg(encoded, colorspace="RGB")
    except ValueError:
        return None


class _Headers(NamedTuple):
    """What stands before a JPEG's pixels."""

    orientation: int
    """EXIF's, 1 to 8 unless it is wrong."""
    size_at: int | None
    """Where two bytes of height and two of width stand; None if the picture is not baseline, or
    comes in several scans."""


def _decode_rows(
    encoded: bytes, headers: _Headers, exif: bool, part: Callable[[int, int], Box]
) -> Pixels | None:
    """The part of a JPEG, by telling libjpeg that the picture ends below it.

    None where that is impossible or saves nothing. What may have lost its end is left to the whole
    decoder, which refuses it.
    """
    start = headers.size_at
    if start is None or not encoded.endswith(_END_OF_IMAGE):
        return None
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(encoded)
        size = height.to_bytes(2) + width.to_bytes(2)
        if (
            encoded[start : start + 4] != size
            or colorspace in ("CMYK", "YCCK")
            or height * width > MAX_PIXELS
        ):
            return None
        orientation = headers.orientation if exif else 1
        box = part(*((width, height) if orientation in _TRANSPOSED else (height, width)))
        box = _stored(box, orientation, height, width)
        # Smooth upsampling of chroma looks a row of chroma, thus two rows of pixels, further.
        rows = box.top + box.height + 2
        if rows >= height:
            return None
        shortened = bytearray(encoded)
        shortened[start : start + 2] = rows.to_bytes(2)
        # Not strict: libjpeg warns of the data of the rows left out.
        pixels = simplejpeg.decode_jpeg(shortened, colorspace="RGB", strict=False)
    except ValueError:
        return None
    return _turn(box.cut(pixels), orientation)


def _read_headers(encoded: bytes) -> _Headers:
    """Walks the headers: opening the picture a second time, or a search, costs far more."""
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
        return _Headers(orientation or 1, None)
    return _Headers(orientation or 1, frame + 5)


def _orientation(exif: bytes) -> int:
    tags = Image.Exif()
    try:
        tags.load(exif)
    except Exception:
        # The picture itself is sound: a damaged tag must not cost it.
        return 1
    return tags.get(_ORIENTATION_TAG, 1)


def _decode_other(encoded: bytes) -> tuple[Pixels, int]:
    """Pixels and EXIF orientation through Pillow."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DecodeError(f"it has {width} x {height} pixels, more than {MAX_PIXELS:,}")
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                _check_tiles(image)
            image.load()
            return to_rgb(image), _orientation_of(image)
    except DecodeError:
        raise
    except Image.UnidentifiedImageError:
        raise DecodeError("it is no picture in a known format") from None
    except Exception as error:
        # Damaged files make Pillow's readers raise nearly anything (SyntaxError, struct.error,
        # zlib.error, IndexError, ...), and one of them must not stop a run.
        raise DecodeError(f"it cannot be decoded: {error}") from error


def _check_tiles(image: TiffImagePlugin.TiffImageFile) -> None:
    """Raises a DecodeError for tiles that are far larger than the picture: one would be decoded."""
    tags = image.tag_v2
    width = tags.get(TiffImagePlugin.TILEWIDTH, 0)
    length = tags.get(TiffImagePlugin.TILELENGTH, 0)
    if width * length > MAX_PIXELS:
        raise DecodeError(f"it has tiles of {width} x {length} pixels, more than {MAX_PIXELS:,}")


def _orientation_of(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        # As in `_orientation`.
        return 1


def to_rgb(image: Image.Image) -> Pixels:
    """Pixels of a Pillow image: uint8 [height, width, 3]; see `decode` for other kinds.

    Raises:
      DecodeError: its pixels have no known range.
    """
    mode = image.mode
    wide = mode.startswith("I;16") or (mode == "I" and image.format == "PNG")
    if mode in ("I", "F") and not wide:
        raise DecodeError(f"its pixels (mode {mode}) have no known range")
    # Pillow takes every CMYK JPEG to be inverted, but only Adobe's programs write them so.
    inverted = mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info
    width, height = image.size
    if width * height <= _PIECE_PIXELS:
        return _piece_to_rgb(image, wide, inverted)
    # In pieces, since each of up to four conversions would copy the whole picture.
    columns = min(width, _PIECE_PIXELS)
    rows = _PIECE_PIXELS // columns
    pixels = np.empty((height, width, 3), np.uint8)
    for top, left in itertools.product(range(0, height, rows), range(0, width, columns)):
        bottom, right = min(height, top + rows), min(width, left + columns)
        piece = image.crop((left, top, right, bottom))
        pixels[top:bottom, left:right] = _piece_to_rgb(piece, wide, inverted)
    return pixels


def _piece_to_rgb(image: Image.Image, wide: bool, inverted: bool) -> Pixels:
    if wide:
        grey = (np.asarray(image, np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if inverted:
        image = ImageChops.invert(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGBA", rgba.size, "white")
        image.alpha_composite(rgba)
    return np.asarray(image.convert("RGB"))


def _turn(pixels: Pixels, orientation: int) -> Pixels:
    """Undoes EXIF orientation 1 to 8; unknown values leave the picture as it is."""
    if orientation in _TRANSPOSED:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in _UPSIDE_DOWN:
        pixels = pixels[::-1]
    if orientation in _MIRRORED:
        pixels = pixels[:, ::-1]
    return pixels


def _stored(box: Box, orientation: int, height: int, width: int) -> Box:
    """Where a box of the turned picture lies in the stored one of this height and width."""
    top, left, rows, columns = box
    if orientation in _TRANSPOSED:
        height, width = width, height
    if orientation in _MIRRORED:
        left = width - left - columns
    if orientation in _UPSIDE_DOWN:
        top = height - top - rows
    if orientation in _TRANSPOSED:
        return Box(left, top, columns, rows)
    return Box(top, left, rows, columns)
