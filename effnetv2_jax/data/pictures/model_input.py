"""Pictures to what a model takes, outside of any training program."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from effnetv2_jax.data.pictures.box import Pixels, turn
from effnetv2_jax.data.pictures.crops import eval_image
from effnetv2_jax.data.pictures.decode import decode
from effnetv2_jax.data.pictures.picture_url import is_url, read_url
from effnetv2_jax.data.pictures.pillow import orientation_of, to_rgb
from effnetv2_jax.data.record import DecodeError
from effnetv2_jax.preprocessing import Preprocessing

Picture = str | os.PathLike[str] | bytes | NDArray[np.uint8] | Image.Image | Any
"""Any is an array of JAX or PyTorch."""


def preprocess(
    images: Picture | Sequence[Picture], *, like: Any, exif: bool = True
) -> NDArray[np.float32]:
    """Decodes, crops or squashes, resizes and normalises pictures, as evaluation does.

    Args:
      images: one picture or several, of any sizes: paths or URLs, encoded bytes, Pillow's images,
        or uint8 arrays of NumPy, JAX or PyTorch: `[H, W, 3]`, grey `[H, W]` or `[H, W, 1]`,
        PyTorch's also `[3, H, W]` or `[1, H, W]`; or one array of several, `[B, H, W, 3]`.
      like: a model, whose `preprocessing` is meant, or a `Preprocessing`.
      exif: turn files, bytes and Pillow's images as their EXIF orientation says.

    Returns:
      float32 `[B, S, S, 3]`, for `model.apply`; B is 1 for one picture.

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
    pixels = [
        eval_image(_pixels(picture, place, exif), preprocessing)
        for place, picture in enumerate(pictures)
    ]
    if not pixels:
        return np.zeros((0, *(preprocessing.image_size,) * 2, 3), np.float32)
    mean, std = np.array([preprocessing.mean, preprocessing.std], np.float32)
    return (np.stack(pixels).astype(np.float32) - mean) / std


def _pixels(picture: Any, place: int, exif: bool) -> Pixels:
    match picture:
        case str() if is_url(picture):
            return _decode(read_url(picture), picture, exif)
        case str() | os.PathLike():
            return _decode(Path(picture).expanduser().read_bytes(), str(picture), exif)
        case bytes():
            return _decode(picture, f"picture {place}", exif)
        case Image.Image():
            pixels = to_rgb(picture)
            return turn(pixels, orientation_of(picture)) if exif else pixels
    pixels = _array(picture)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] not in (1, 3):
        raise TypeError(
            f"picture {place} must be a path, bytes, a Pillow image, or uint8 [H, W, 3] or [H, W] "
            f"of values from 0 to 255, not {pixels.dtype} {list(np.shape(picture))}"
        )
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def _array(picture: Any) -> NDArray[Any]:
    """As `[H, W, C]`, if it is a picture."""
    of_torch = hasattr(picture, "detach")
    pixels = np.asarray(picture.detach().cpu() if of_torch else picture)
    if pixels.ndim == 2:
        return pixels[:, :, None]
    if of_torch and pixels.ndim == 3 and pixels.shape[-1] not in (1, 3):
        return pixels.transpose(1, 2, 0)
    return pixels


def _decode(encoded: bytes, name: str, exif: bool) -> Pixels:
    try:
        return decode(encoded, exif=exif)
    except DecodeError as error:
        raise DecodeError(f"{name}: {error}") from error
