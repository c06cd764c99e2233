"""Pictures to what a model takes, outside of any training program."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from effnetv2_jax.data.pictures.box import Pixels, turn
from effnetv2_jax.data.pictures.channels import to_channels
from effnetv2_jax.data.pictures.crops import eval_image
from effnetv2_jax.data.pictures.decode import decode
from effnetv2_jax.data.pictures.deep import to_8_bits
from effnetv2_jax.data.pictures.limits import MAX_PIXELS
from effnetv2_jax.data.pictures.picture_url import is_url, read_url
from effnetv2_jax.data.pictures.pillow import orientation_of, to_rgb
from effnetv2_jax.data.record import DecodeError
from effnetv2_jax.preprocessing import Preprocessing

Picture = str | os.PathLike[str] | bytes | NDArray[np.uint8 | np.uint16] | Image.Image | Any
"""Any is an array of JAX or PyTorch."""


def preprocess(
    images: Picture | Sequence[Picture],
    *,
    like: Any,
    exif: bool = True,
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.float32]:
    """Decodes, crops or squashes, resizes and normalises pictures, as evaluation does.

    Args:
      images: one picture or several, of any sizes: paths or URLs, encoded bytes, Pillow's images,
        or uint8 arrays of NumPy, JAX or PyTorch: `[H, W, 3]`, grey `[H, W]` or `[H, W, 1]`, or
        `[H, W, C]` with the model's C; PyTorch's also `[3, H, W]`, `[1, H, W]` or `[C, H, W]`; or
        one array of several, `[B, H, W, C]`. Arrays may be uint16, scaled as files of 16 bits are.
      like: a model, whose `preprocessing` is meant, or a `Preprocessing`, which states C.
      exif: turn files, bytes and Pillow's images as their EXIF orientation says.
      max_pixels: larger pictures are refused, since decoding takes memory.

    Returns:
      float32 `[B, S, S, C]`, for `model.apply`; B is 1 for one picture. For C = 1 colours become
      grey, and for C = 3 grey becomes RGB; other channels have to be the picture's.

    Raises:
      DecodeError: a picture cannot be decoded, and which.
      OSError: a file cannot be opened.
      TypeError: it is none of the above.
    """
    preprocessing: Preprocessing = getattr(like, "preprocessing", like)
    if not isinstance(preprocessing, Preprocessing):
        raise TypeError(f"like must be a model or a Preprocessing, not {type(like).__name__}")
    one = isinstance(images, str | os.PathLike | bytes | Image.Image)
    one = one or getattr(images, "ndim", 4) < 4
    pictures: Any = [images] if one else images
    read = functools.partial(
        _pixels, exif=exif, channels=preprocessing.channels, max_pixels=max_pixels
    )
    pixels = [
        eval_image(read(picture, place), preprocessing) for place, picture in enumerate(pictures)
    ]
    mean, std = np.array([preprocessing.mean, preprocessing.std], np.float32)
    if not pixels:
        return np.zeros((0, *(preprocessing.image_size,) * 2, len(mean)), np.float32)
    return (np.stack(pixels).astype(np.float32) - mean) / std


def _pixels(picture: Any, place: int, *, exif: bool, channels: int, max_pixels: int) -> Pixels:
    def read(encoded: bytes, name: str) -> Pixels:
        try:
            return decode(encoded, exif=exif, channels=channels, max_pixels=max_pixels)
        except DecodeError as error:
            raise DecodeError(f"{name}: {error}") from error

    match picture:
        case str() if is_url(picture):
            return read(read_url(picture), picture)
        case str() | os.PathLike():
            return read(Path(picture).expanduser().read_bytes(), str(picture))
        case bytes():
            return read(picture, f"picture {place}")
        case Image.Image():
            pixels = to_rgb(picture)
            pixels = turn(pixels, orientation_of(picture)) if exif else pixels
        case _:
            pixels = _array(picture, place, channels)
    try:
        return to_channels(pixels, channels)
    except DecodeError as error:
        raise DecodeError(f"picture {place}: {error}") from error


def _array(picture: Any, place: int, channels: int) -> Pixels:
    """An array as uint8 `[H, W, K]`."""
    of_torch = hasattr(picture, "detach")
    pixels = np.asarray(picture.detach().cpu() if of_torch else picture)
    known = {1, 3, channels}
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    elif of_torch and pixels.ndim == 3 and pixels.shape[-1] not in known:
        pixels = pixels.transpose(1, 2, 0)
    if (
        pixels.dtype not in (np.uint8, np.uint16)
        or pixels.ndim != 3
        or pixels.shape[-1] not in known
    ):
        raise TypeError(
            f"picture {place} must be a path, bytes, a Pillow image, or uint8 [H, W, 3] or [H, W] "
            f"of values from 0 to 255{_or_own(channels)}, not {pixels.dtype} "
            f"{list(np.shape(picture))}"
        )
    return to_8_bits(pixels) if pixels.dtype == np.uint16 else pixels


def _or_own(channels: int) -> str:
    return "" if channels in (1, 3) else f", or [H, W, {channels}]"
