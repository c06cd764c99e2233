"""Pictures of any format through Pillow."""

import importlib
import io
import itertools
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image, ImageChops, TiffImagePlugin

from effnetv2_jax.data.pictures.box import Box, Pixels
from effnetv2_jax.data.pictures.deep import depth_of, grey, is_deep, low_bits, stated_depth
from effnetv2_jax.data.pictures.formats import READ, SIGNATURE_BYTES, how_to_decode
from effnetv2_jax.data.pictures.limits import MAX_PIXELS
from effnetv2_jax.data.record import DecodeError

FORMATS = tuple(each.pillow for each in READ)
"""What is read, as Pillow calls it. It reads others with no bound on memory, or by programs."""

if "HEIF" in FORMATS:
    importlib.import_module("pillow_heif").register_heif_opener()

_PIECE_PIXELS = 2**20


def decode(encoded: bytes, max_pixels: int = MAX_PIXELS) -> tuple[Pixels, int]:
    """All pixels as they are stored, uint8 [height, width, 3], and the EXIF orientation.

    Raises:
      DecodeError: as `decode.decode` says; nothing else.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            width, height = image.size
            _check_size(width, height, max_pixels, halved=image.format == "JPEG2000")
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                _check_tiles(image, max_pixels)
            deep = is_deep(image)
            image.load()
            orientation = orientation_of(image)
            return to_rgb(low_bits(image, encoded) if deep else image), orientation
    except DecodeError:
        raise
    except Image.DecompressionBombError as error:
        raise DecodeError(
            f"{error}; beyond max_pixels, Pillow's own PIL.Image.MAX_IMAGE_PIXELS has to be raised"
        ) from error
    except Image.UnidentifiedImageError:
        hint = how_to_decode(encoded[:SIGNATURE_BYTES])
        read = f"; to read it: {hint}" if hint else ""
        raise DecodeError(f"it is no picture in a known format{read}") from None
    except Exception as error:
        # Damaged files make Pillow's readers raise nearly anything (SyntaxError, struct.error,
        # zlib.error, IndexError, ...), and one of them must not stop a run.
        raise DecodeError(f"it cannot be decoded: {error}") from error


def _check_size(width: int, height: int, max_pixels: int, *, halved: bool) -> None:
    limit, name = (max_pixels // 2, "half of max_pixels") if halved else (max_pixels, "max_pixels")
    if width * height > limit:
        raise DecodeError(f"it has {width} x {height} pixels, more than {name}, {limit:,}")


def _check_tiles(image: TiffImagePlugin.TiffImageFile, max_pixels: int) -> None:
    """Raises a DecodeError for tiles that are far larger than the picture: one would be decoded."""
    tags = image.tag_v2
    width = tags.get(TiffImagePlugin.TILEWIDTH, 0)
    length = tags.get(TiffImagePlugin.TILELENGTH, 0)
    if width * length > max_pixels:
        raise DecodeError(
            f"it has tiles of {width} x {length} pixels, more than max_pixels, {max_pixels:,}"
        )


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        # The picture itself is sound: a damaged tag must not cost it.
        return 1


def to_rgb(image: Image.Image) -> Pixels:
    """Pixels of a Pillow image of any mode, converted as `decode.decode` says.

    Returns:
      uint8 [height, width, 3].

    Raises:
      DecodeError: its pixels have no known range.
    """
    mode = image.mode
    wide = mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM"))
    if mode in ("I", "F") and not wide:
        raise DecodeError(
            f"its pixels (mode {mode}) have no known range; convert it to 8 or 16 bits"
        )
    depth = None
    if wide:
        largest = max(int(np.asarray(piece).max()) for _, piece in _pieces(image))
        depth = depth_of(largest, stated_depth(image))
    # Pillow takes every CMYK JPEG to be inverted, but only Adobe's programs write them so.
    inverted = mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info
    width, height = image.size
    if width * height <= _PIECE_PIXELS:
        return _piece_to_rgb(image, depth, inverted)
    pixels = np.empty((height, width, 3), np.uint8)
    for box, piece in _pieces(image):
        box.cut(pixels)[:] = _piece_to_rgb(piece, depth, inverted)
    return pixels


def _pieces(image: Image.Image) -> Iterator[tuple[Box, Image.Image]]:
    """The image in pieces, since each of up to four conversions would copy the whole."""
    width, height = image.size
    columns = min(width, _PIECE_PIXELS)
    rows = _PIECE_PIXELS // columns
    for top, left in itertools.product(range(0, height, rows), range(0, width, columns)):
        bottom, right = min(height, top + rows), min(width, left + columns)
        piece = image.crop((left, top, right, bottom))
        yield Box(top, left, bottom - top, right - left), piece


def _piece_to_rgb(image: Image.Image, depth: int | None, inverted: bool) -> Pixels:
    """Converts a piece; `depth` is that of grey values of 16 bits, and None of others."""
    if depth is not None:
        return grey(image, depth)
    if inverted:
        image = ImageChops.invert(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGBA", rgba.size, "white")
        image.alpha_composite(rgba)
    return np.asarray(image.convert("RGB"))
