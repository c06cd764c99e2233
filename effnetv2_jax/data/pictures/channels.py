"""Pictures of other channels than RGB: grey ones, and arrays and TIFF files with any number.

Only `.npy` files and TIFF hold other numbers of channels than one and three. Values of 16 bits are
scaled to 8 as `deep` says.
"""

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from effnetv2_jax.data.pictures.box import Pixels
from effnetv2_jax.data.pictures.deep import to_8_bits
from effnetv2_jax.data.record import DecodeError

_ARRAY = b"\x93NUMPY"
_DTYPES = (np.dtype(np.uint8), np.dtype("<u2"), np.dtype(">u2"))
_PLANES = ("SYX", "CYX", "QYX", "IYX", "ZYX")
"""Axes of a TIFF that has a plane, or a page, for each channel, as tifffile calls them."""
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_array(encoded: bytes) -> bool:
    """Whether a file is an array of NumPy's."""
    return encoded.startswith(_ARRAY)


def is_tiff(encoded: bytes) -> bool:
    """Whether a file is a TIFF."""
    return encoded.startswith(_TIFF)


def to_channels(pixels: Pixels, channels: int) -> Pixels:
    """A picture with the channels that a model takes.

    Args:
      pixels: uint8 [height, width, K].
      channels: K; 1, Pillow's luma (ITU-R 601-2), where K is 3; or 3, of which each is
        the picture, where K is 1.

    Returns:
      uint8 [height, width, channels].

    Raises:
      DecodeError: it has others.
    """
    found = pixels.shape[-1]
    match found, channels:
        case _ if found == channels:
            return pixels
        case 1, 3:
            return np.repeat(pixels, 3, axis=2)
        case 3, 1:
            return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
    raise DecodeError(
        f"it has {found} channels, and the model takes {channels} (config.model.input_channels)"
    )


def read_array(encoded: bytes, max_pixels: int) -> Pixels:
    """A `.npy` file of uint8 or uint16 `[height, width]` or `[height, width, K]`.

    Returns:
      uint8 [height, width, K].

    Raises:
      DecodeError: it is damaged, holds something else or is too large.
    """
    stream = io.BytesIO(encoded)
    try:
        version = np.lib.format.read_magic(stream)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        shape, by_columns, dtype = read[version[0]](stream)
    except Exception as error:  # Of damaged headers, NumPy raises nearly anything.
        raise DecodeError(f"its header cannot be read: {error}") from error
    _check(shape, dtype, max_pixels)
    start, count = stream.tell(), math.prod(shape)
    if len(encoded) - start < count * dtype.itemsize:
        raise DecodeError("it lacks its end")
    values = np.frombuffer(encoded, dtype, count, start)
    return _scaled(values.reshape(shape, order="F" if by_columns else "C"))


def read_tiff(encoded: bytes, max_pixels: int) -> Pixels:
    """The first picture of a TIFF with all of its channels, in one plane or in one plane each.

    Returns:
      uint8 [height, width, K].

    Raises:
      DecodeError: it is damaged, is not of uint8 or uint16, is too large, or there is no tifffile.
    """
    try:
        import tifffile
    except ImportError as error:
        raise DecodeError(
            "TIFF of other channels than RGB needs tifffile: pip install effnetv2_jax[tiff]"
        ) from error
    try:
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            series = file.series[0]
            _check(series.shape, np.dtype(series.dtype), max_pixels)
            values = series.asarray()
            if series.axes in _PLANES:
                values = np.moveaxis(values, 0, -1)
    except DecodeError:
        raise
    except Exception as error:  # As Pillow's readers.
        raise DecodeError(f"it cannot be decoded: {error}") from error
    return _scaled(values)


def _check(shape: tuple[int, ...], dtype: np.dtype, max_pixels: int) -> None:
    """Raises a DecodeError for an array that is no picture, or too large a one."""
    if dtype not in _DTYPES or len(shape) not in (2, 3):
        raise DecodeError(
            f"it has an array of {dtype} {list(shape)}; pictures are uint8 or uint16 [height, "
            "width] or [height, width, channels]"
        )
    if 0 in shape:
        raise DecodeError(f"it is empty: {list(shape)}")
    # Channels count as they do in RGB, where a pixel has three.
    if math.prod(shape) > 3 * max_pixels:
        raise DecodeError(
            f"it has {' x '.join(map(str, shape))} values, more than three times max_pixels, which "
            f"is {max_pixels:,}"
        )


def _scaled(values: NDArray[np.uint8 | np.uint16]) -> Pixels:
    pixels = values[:, :, None] if values.ndim == 2 else values
    return to_8_bits(pixels) if pixels.dtype.itemsize > 1 else pixels.astype(np.uint8, copy=False)
