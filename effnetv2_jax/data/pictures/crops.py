"""Which part of a picture becomes the image, and how it is resized."""

import functools
import math
from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from effnetv2_jax.data.pictures.box import Box, Pixels
from effnetv2_jax.preprocessing import Preprocessing, cropped

# The pipeline has a thread for every core already.
cv2.setNumThreads(0)

Law = Literal["tensorflow", "efficientnet", "torchvision", "none"]

_INTERPOLATIONS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def random_box(
    law: Law,
    height: int,
    width: int,
    *,
    area: tuple[float, float],
    aspect: tuple[float, float],
    image_size: int,
    rng: np.random.Generator,
) -> Box:
    """Draws a training crop.

    Args:
      law: how boxes are distributed; `DataConfig.crop` names the laws.
      height, width: the picture's size in pixels.
      area: smallest and largest share of the picture's area, in (0, 1].
      aspect: smallest and largest width / height.
      image_size: side in pixels that the crop will be resized to. Where "efficientnet" finds no
        box, it takes the one of evaluation at this size.
      rng: where the randomness comes from.
    """
    box = _LAWS[law](height, width, area, aspect, rng)
    if law == "efficientnet" and box == Box(0, 0, height, width):
        return eval_box(cropped(image_size), height, width)
    return box


def eval_box(preprocessing: Preprocessing, height: int, width: int) -> Box:
    """The part of a picture that evaluation sees; the side of a square is rounded down."""
    if preprocessing.crop_padding is None:
        return Box(0, 0, height, width)
    size = preprocessing.image_size
    side = max(1, size * min(height, width) // (size + preprocessing.crop_padding))
    return Box((height - side) // 2, (width - side) // 2, side, side)


def eval_image(pixels: Pixels, preprocessing: Preprocessing) -> Pixels:
    """What evaluation makes of a picture: uint8 [S, S, C], not normalised yet."""
    height, width, _ = pixels.shape
    return resize(eval_box(preprocessing, height, width).cut(pixels), preprocessing)


def resize(pixels: Pixels, preprocessing: Preprocessing) -> Pixels:
    """Resizes a picture, or a part of one, to a square of the image size, at half-pixel centres.

    With antialiasing it is Pillow's. Without, bilinear is TensorFlow's `tf.image.resize` rounded to
    whole values. Bicubic has TensorFlow 1's kernel (a = -0.75), with which the B models were
    trained, but samples at pixel centres, where TensorFlow 1 starts at the pixels' corners and so
    shifts the picture by up to half a pixel of the result.

    Args:
      pixels: uint8 [height, width, C].
      preprocessing: its size S, interpolation and antialiasing count.

    Returns:
      uint8 [S, S, C].
    """
    size, interpolation = (preprocessing.image_size,) * 2, preprocessing.interpolation
    channels = pixels.shape[-1]
    if preprocessing.antialias:
        # Pillow resizes each channel by itself, and takes arrays of three or of one.
        planes = (
            [pixels] if channels == 3 else [pixels[..., channel] for channel in range(channels)]
        )
        resized = [
            Image.fromarray(each).resize(size, _RESAMPLING[interpolation]) for each in planes
        ]
        return np.dstack([np.asarray(each) for each in resized])
    scaled = cv2.resize(pixels, size, interpolation=_INTERPOLATIONS[interpolation])
    return np.asarray(scaled, np.uint8).reshape(*size, channels)


def _tensorflow_box(
    height: int,
    width: int,
    area: tuple[float, float],
    aspect: tuple[float, float],
    rng: np.random.Generator,
    *,
    attempts: int,
    covered: float,
) -> Box:
    """`tf.image.sample_distorted_bounding_box`, the whole picture being the object to cover.

    Args:
      attempts: after which the box is the whole picture.
      covered: share of the object that a box must contain; smaller ones use up an attempt.
    """
    smallest, largest = area[0] * height * width, area[1] * height * width
    enough = max(smallest, covered * height * width)
    for _ in range(attempts):
        ratio = aspect[0] + (aspect[1] - aspect[0]) * rng.random()
        low = round(math.sqrt(smallest / ratio))
        high = min(round(math.sqrt(largest / ratio)), int((width + 0.5) / ratio), height)
        rows = low + _below(rng, high - low + 1) if low < high else high
        columns = round(rows * ratio)
        # Rounding may leave the limits by less than a row.
        if rows * columns < smallest:
            rows += 1
            columns = round(rows * ratio)
        if rows * columns > largest:
            rows -= 1
            columns = round(rows * ratio)
        if 0 < rows <= height and 0 < columns <= width and enough <= rows * columns <= largest:
            # TensorFlow never draws the last possible position.
            top, left = _below(rng, height - rows), _below(rng, width - columns)
            return Box(top, left, rows, columns)
    return Box(0, 0, height, width)


def _torchvision_box(
    height: int,
    width: int,
    area: tuple[float, float],
    aspect: tuple[float, float],
    rng: np.random.Generator,
) -> Box:
    """torchvision's `RandomResizedCrop`, 10 attempts, then the centre within the aspect limits."""
    low, high = math.log(aspect[0]), math.log(aspect[1])
    for _ in range(10):
        target = height * width * (area[0] + (area[1] - area[0]) * rng.random())
        ratio = math.exp(low + (high - low) * rng.random())
        rows, columns = round(math.sqrt(target / ratio)), round(math.sqrt(target * ratio))
        if 0 < rows <= height and 0 < columns <= width:
            top, left = _below(rng, height - rows + 1), _below(rng, width - columns + 1)
            return Box(top, left, rows, columns)
    columns = min(width, max(1, round(height * aspect[1])))
    rows = min(height, max(1, round(width / aspect[0])))
    return Box((height - rows) // 2, (width - columns) // 2, rows, columns)


def _whole_box(
    height: int,
    width: int,
    area: tuple[float, float],
    aspect: tuple[float, float],
    rng: np.random.Generator,
) -> Box:
    return Box(0, 0, height, width)


def _below(rng: np.random.Generator, end: int) -> int:
    """Uniform over 0 to `end` - 1; 0 where `end` is 0."""
    return int(rng.random() * end)


_LAWS: dict[Law, Callable[..., Box]] = {
    "tensorflow": functools.partial(_tensorflow_box, attempts=100, covered=0.0),
    "efficientnet": functools.partial(_tensorflow_box, attempts=10, covered=0.1),
    "torchvision": _torchvision_box,
    "none": _whole_box,
}
