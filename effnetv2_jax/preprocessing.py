"""How a picture becomes a model's input: plain data, which travels with weights."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, Self

PerChannel = tuple[float, ...]
Interpolation = Literal["bilinear", "bicubic"]

CROP_PADDING = 32
"""Of the usual crop in evaluation: 224 of 256 pixels."""
IMAGENET_MEAN: PerChannel = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD: PerChannel = (0.229 * 255, 0.224 * 255, 0.225 * 255)


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
    mean: PerChannel = (128.0, 128.0, 128.0)
    """Subtracted per channel (mostly RGB) from pixels in [0, 255]; of as many numbers as there are
    channels."""
    std: PerChannel = (128.0, 128.0, 128.0)
    """Divides per channel, after the mean is subtracted."""

    def __post_init__(self) -> None:
        for fault in (
            self.image_size < 1 and f"image_size is {self.image_size}",
            (self.crop_padding or 0) < 0 and f"crop_padding is {self.crop_padding}",
            self.interpolation not in ("bilinear", "bicubic")
            and f"interpolation is {self.interpolation!r}, not 'bilinear' or 'bicubic'",
            (not self.mean or not all(map(math.isfinite, self.mean)))
            and f"mean is {self.mean}, not a number for each channel",
            not all(0 < value < math.inf for value in self.std)
            and f"std is {self.std}, not numbers above 0",
            len(self.mean) != len(self.std)
            and f"mean has {len(self.mean)} numbers, and std {len(self.std)}",
        ):
            if fault:
                raise ValueError(f"preprocessing makes no sense: {fault}")

    @property
    def channels(self) -> int:
        """Of the images."""
        return len(self.mean)

    def for_channels(self, channels: int) -> Self:
        """With mean and deviation for another number of channels.

        For one they are averaged, and for others repeated in order, as first kernels are adapted.
        """
        if channels == self.channels:
            return self

        def adapted(values: PerChannel) -> PerChannel:
            if channels == 1:
                return (sum(values) / len(values),)
            return tuple(values[channel % len(values)] for channel in range(channels))

        return dataclasses.replace(self, mean=adapted(self.mean), std=adapted(self.std))

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
