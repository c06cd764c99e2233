"""Small pictures to look at, as files."""

import cv2
import numpy as np
import simplejpeg

from effnetv2_jax.data.pictures.box import Pixels
from effnetv2_jax.data.pictures.decode import decode
from effnetv2_jax.data.pictures.limits import MAX_PIXELS

_QUALITY = 82


def thumbnail(
    encoded: bytes,
    *,
    side: int,
    exif: bool = False,
    channels: int = 3,
    max_pixels: int = MAX_PIXELS,
) -> bytes:
    """A picture as a JPEG whose longer side is `side` pixels at most.

    Args:
      encoded, exif, channels, max_pixels: as for `decode`.

    Raises:
      DecodeError: it cannot be read.
    """
    pixels = decode(encoded, exif=exif, channels=channels, max_pixels=max_pixels)
    pixels = np.ascontiguousarray(in_colours(pixels))
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        return to_jpeg(small.astype(np.uint8))
    return to_jpeg(pixels)


def to_jpeg(pixels: Pixels) -> bytes:
    """uint8 [height, width, C] as a JPEG."""
    encoded = simplejpeg.encode_jpeg(np.ascontiguousarray(in_colours(pixels)), quality=_QUALITY)
    return bytes(encoded)


def in_colours(pixels: Pixels) -> Pixels:
    """uint8 [height, width, 3] of any channels: the first three, or the first one as grey."""
    count = pixels.shape[-1]
    return pixels[..., :3] if count >= 3 else np.repeat(pixels[..., :1], 3, axis=-1)
