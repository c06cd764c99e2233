"""Pictures of any format through Pillow."""

import io
import itertools

import numpy as np
from PIL import ExifTags, Image, ImageChops, TiffImagePlugin

from effnetv2_jax.data.pictures.box import Pixels
from effnetv2_jax.data.pictures.limits import MAX_PIXELS
from effnetv2_jax.data.record import DecodeError

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF")
"""What is read, as Pillow calls it. It reads others with no bound on memory, or by programs."""

_PIECE_PIXELS = 2**20


def decode(encoded: bytes) -> tuple[Pixels, int]:
    """All pixels as they are stored, uint8 [height, width, 3], and the EXIF orientation.

    Raises:
      DecodeError: as `decode.decode` says; nothing else.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DecodeError(f"it has {width} x {height} pixels, more than {MAX_PIXELS:,}")
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                _check_tiles(image)
            image.load()
            return to_rgb(image), orientation_of(image)
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
