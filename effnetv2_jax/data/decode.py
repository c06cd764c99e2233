"""Encoded pictures to `uint8` RGB arrays."""

import io

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageChops

from effnetv2_jax.data.record import DecodeError

Pixels = NDArray[np.uint8]

MAX_PIXELS = 2**27
"""Larger pictures are refused: decoded, they would take more than 400 MB."""

_ORIENTATION_TAG = 0x0112
_START_OF_SCAN = 0xDA


def decode(encoded: bytes, *, exif: bool = False) -> Pixels:
    """Decodes a picture of any format that Pillow reads; of an animation, its first frame.

    JPEG goes through libjpeg-turbo with accurate DCT and smooth chroma upsampling. Grey becomes
    RGB, transparency is laid over white, of 16-bit channels the high byte counts (as in
    TensorFlow's decoder), and CMYK is converted without a colour profile.

    Args:
      encoded: the file's bytes.
      exif: turn the picture as its EXIF orientation says.

    Returns:
      uint8 [height, width, 3], RGB, possibly a view that is not contiguous.

    Raises:
      DecodeError: it is no picture, is damaged, has no 8- or 16-bit channels or more than
        `MAX_PIXELS` pixels.
    """
    if not encoded:
        raise DecodeError("it is empty")
    pixels = _decode_jpeg(encoded) if simplejpeg.is_jpeg(encoded) else None
    if pixels is not None:
        orientation = _jpeg_orientation(encoded) if exif else 1
    else:
        pixels, orientation = _decode_other(encoded)
    return _turn(pixels, orientation) if exif else pixels


def _decode_jpeg(encoded: bytes) -> Pixels | None:
    """The fast path; None where libjpeg-turbo refuses or warns, and Pillow has to judge."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(encoded)
        if colorspace in ("CMYK", "YCCK") or height * width > MAX_PIXELS:
            return None
        return simplejpeg.decode_jpeg(encoded, colorspace="RGB")
    except ValueError:
        return None


def _jpeg_orientation(encoded: bytes) -> int:
    """Walks the headers: opening the picture a second time, or a search, costs far more."""
    start = 2
    while encoded[start : start + 1] == b"\xff" and encoded[start + 1] != _START_OF_SCAN:
        end = start + 2 + int.from_bytes(encoded[start + 2 : start + 4])
        if encoded[start + 4 : start + 10] == b"Exif\0\0":
            tags = Image.Exif()
            try:
                tags.load(encoded[start + 4 : end])
            except Exception:
                # The picture itself is sound: a damaged tag must not cost it.
                return 1
            return tags.get(_ORIENTATION_TAG, 1)
        start = end
    return 1


def _decode_other(encoded: bytes) -> tuple[Pixels, int]:
    """Pixels and EXIF orientation through Pillow."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DecodeError(f"it has {width} x {height} pixels, more than {MAX_PIXELS:,}")
            image.load()
            return to_rgb(image), image.getexif().get(_ORIENTATION_TAG, 1)
    except DecodeError:
        raise
    except Image.UnidentifiedImageError:
        raise DecodeError("it is no picture in a known format") from None
    except Exception as error:
        # Damaged files make Pillow's readers raise nearly anything (SyntaxError, struct.error,
        # zlib.error, IndexError, ...), and one of them must not stop a run.
        raise DecodeError(f"it cannot be decoded: {error}") from error


def to_rgb(image: Image.Image) -> Pixels:
    """Pixels of a Pillow image: uint8 [height, width, 3]; see `decode` for other kinds.

    Raises:
      DecodeError: its pixels have no known range.
    """
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format == "PNG"):
        grey = (np.asarray(image, np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if mode in ("I", "F"):
        raise DecodeError(f"its pixels (mode {mode}) have no known range")
    if mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        # Pillow takes every CMYK JPEG to be inverted, but only Adobe's programs write them so.
        image = ImageChops.invert(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGBA", rgba.size, "white")
        image.alpha_composite(rgba)
    return np.asarray(image.convert("RGB"))


def _turn(pixels: Pixels, orientation: int) -> Pixels:
    """Undoes EXIF orientation 1 to 8; unknown values leave the picture as it is."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
