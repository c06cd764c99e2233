"""Pictures of 16 bits per channel, of which cameras and scanners often use fewer.

They are scaled to 8 bits by the smallest of the usual depths that holds their largest value: one
with values up to 4095 is of 12 bits, and loses 4. By the high byte of 16 bits it would be nearly
black. The rule looks at a picture alone, so that training, evaluation and prediction agree, and a
picture means the same in whichever set it lies. Its price: a dark picture can count as one of fewer
bits, and then is brighter by a power of 4.
"""

import functools
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from effnetv2_jax.data.pictures.box import Pixels

DEPTHS = (8, 10, 12, 14, 16)
"""Bits that the values of a picture of 16 may have."""

_log = logging.getLogger(__name__)


def depth_of(largest: int, stated: int = 8) -> int:
    """The smallest of `DEPTHS` that holds a value, and is not below what the file states."""
    found = next(bits for bits in DEPTHS if largest < 2**bits and stated <= bits)
    if found < DEPTHS[-1]:
        _say(
            f"a picture of 16 bits has no value above {2**found - 1}, and is read as one of "
            f"{found} bits; convert such pictures to 8 bits to have them scaled otherwise"
        )
    return found


def stated_depth(image: Image.Image) -> int:
    """The bits that a file states to be used of 16: at least 8, which means nothing."""
    if image.format == "PPM":
        return 16  # Pillow has scaled its largest value, which it states.
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]
        return bits if 8 < bits < 16 else 8
    return 8


def is_deep(image: Image.Image) -> bool:
    """Whether an image has 16-bit colours, of which Pillow is going to load the high bytes only."""
    tiles = getattr(image, "tile", ())
    return image.mode in ("RGB", "RGBA", "LA") and any(";16" in str(tile[3]) for tile in tiles)


def low_bits(image: Image.Image, encoded: bytes) -> Image.Image:
    """A picture of 16-bit colours whose high bytes are in `image`, scaled as the module says.

    Args:
      image: loaded, `RGB`, `RGBA` or `LA`.
      encoded: its file.
    """
    colours = image.getbands()[: 1 if image.mode == "LA" else 3]
    if any(np.asarray(image.getchannel(colour)).max() >= 2**6 for colour in colours):
        return image  # All 16 bits count.
    import cv2  # Here, since few pictures need it to be decoded.

    found = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint16 or found.shape[:2] != image.size[::-1]:
        _say("a dark picture of 16-bit colours can be read by its high bytes only")
        return image
    channels: NDArray[np.uint16] = np.atleast_3d(found)
    bgr = channels[..., :3] >> depth_of(int(channels[..., :3].max())) - 8
    rgb = Image.fromarray(np.ascontiguousarray(bgr[..., ::-1], np.uint8))
    if image.mode != "RGB":
        rgb.putalpha(image.getchannel("A"))
    return rgb


def grey(image: Image.Image, depth: int) -> Pixels:
    """Grey values of 16 bits, of which `depth` count, as uint8 [height, width, 3]."""
    values = (np.asarray(image, np.uint32) >> depth - 8).astype(np.uint8)
    return np.repeat(values[:, :, None], 3, axis=2)


def to_8_bits(values: NDArray[Any]) -> Pixels:
    """An array of 16-bit values, scaled as the module says."""
    return (values >> depth_of(int(values.max())) - 8).astype(np.uint8)


@functools.cache
def _say(text: str) -> None:
    """Logs something once in a process."""
    _log.warning("%s", text)
