"""Small pictures to look at, as files."""

import cv2
import numpy as np
import simplejpeg

from effnetv2_jax.data.pictures.box import Pixels
from effnetv2_jax.data.pictures.decode import decode

_QUALITY = 82


def thumbnail(encoded: bytes, *, exif: bool, side: int) -> bytes:
    """A picture as a JPEG whose longer side is `side` pixels at most.

    Raises:
      DecodeError: it cannot be read.
    """
    pixels = decode(encoded, exif=exif)
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA)
        return to_jpeg(small.astype(np.uint8))
    return to_jpeg(pixels)


def to_jpeg(pixels: Pixels) -> bytes:
    """uint8 [height, width, 3] as a JPEG."""
    encoded = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=_QUALITY)
    return bytes(encoded)
