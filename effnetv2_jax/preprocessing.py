"""How a picture becomes a model's input: plain data, which travels with weights."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, Self

Triple = tuple[float, float, float]
Interpolation = Literal["bilinear", "bicubic"]

CROP_PADDING = 32
"""Of the usual crop in evaluation: 224 of 256 pixels."""
IMAGENET_MEAN: Triple = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD: Triple = (0.229 * 255, 0.224 * 255, 0.225 * 255)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What evaluation does to a picture before the model sees it."""

    image_size: int
    """Height and width in pixels."""
    crop_padding: int | None = None
    """The central square of side size / (size + padding) of the short side is seen; with 0 that is
    the largest one. None squashes the whole picture to a square."""
    interpolation: Interpolation = "bilinear"
    """How it is resized."""
    antialias: bool = False
    """Whether shrinking takes in all pixels, as Pillow, timm and torchvision do; TensorFlow does
    not."""
    mean: Triple = (128.0, 128.0, 128.0)
    """Subtracted per channel (RGB) from pixels in [0, 255]."""
    std: Triple = (128.0, 128.0, 128.0)
    """Divides per channel, after the mean is subtracted."""

    def __post_init__(self) -> None:
        for fault in (
            self.image_size < 1 and f"image_size is {self.image_size}",
            (self.crop_padding or 0) < 0 and f"crop_padding is {self.crop_padding}",
            self.interpolation not in ("bilinear", "bicubic")
            and f"interpolation is {self.interpolation!r}, not 'bilinear' or 'bicubic'",
            (len(self.mean) != 3 or not all(map(math.isfinite, self.mean)))
            and f"mean is {self.mean}, not three numbers",
            (len(self.std) != 3 or not all(0 < value < math.inf for value in self.std))
            and f"std is {self.std}, not three above 0",
        ):
            if fault:
                raise ValueError(f"preprocessing makes no sense: {fault}")

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """From `dataclasses.asdict`, as JSON gives it back: with lists in place of tuples."""
        values: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**values)


def squashed(image_size: int) -> Preprocessing:
    """EfficientNetV2-S, M, L and XL: the whole picture, bilinear, (x - 128) / 128."""
    return Preprocessing(image_size=image_size)


def cropped(image_size: int) -> Preprocessing:
    """EfficientNetV2-B0 to B3 and V1: the centre, bicubic, ImageNet's mean and deviation."""
    return Preprocessing(
        image_size=image_size,
        crop_padding=CROP_PADDING,
        interpolation="bicubic",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
