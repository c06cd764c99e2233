"""ResNets as a table: the plain ones, their D forms and ResNet-RS.

Plain: arXiv 1512.03385, with the stride in a block's 3x3 convolution, as PyTorch has it. D: arXiv
1812.01187. RS: arXiv 2103.07579, table 11 for the depths. A new variant is a new row of `VARIANTS`.
"""

import dataclasses
from typing import Literal

from effnetv2_jax.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Interpolation,
    Preprocessing,
)

Pool = Literal["max", "conv"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """What follows from a ResNet's name."""

    repeats: tuple[int, ...]
    """Blocks of each stage; every stage but the first halves the resolution."""
    width: int = 64
    """Channels of the stem and of the first stage's 3x3 convolutions; each stage doubles them, and
    a block puts out four times as many."""
    deep_stem: bool = False
    """Three 3x3 convolutions in place of one of 7x7."""
    stem_pool: Pool = "max"
    """What halves the resolution after the stem: a maximum over 3x3 pixels, or a 3x3 convolution
    with a BatchNorm of its own."""
    average_shortcut: bool = False
    """Shortcuts average 2x2 pixels where they halve the resolution, in place of leaving out three
    of four."""
    se_ratio: float = 0.0
    """Width of squeeze-and-excitation over a block's output channels; 0 leaves it out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A named model."""

    architecture: Architecture
    preprocessing: Preprocessing
    """With which it is evaluated, unless its weights say otherwise."""
    dropout_rate: float = 0.0


def centre(size: int, share: float, interpolation: Interpolation) -> Preprocessing:
    """The central square of that share of the short side, as timm and torchvision evaluate."""
    return Preprocessing(
        image_size=size,
        crop_padding=int(size / share) - size,
        interpolation=interpolation,
        antialias=True,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


def _plain(*repeats: int) -> Variant:
    return Variant(
        architecture=Architecture(repeats=repeats), preprocessing=centre(224, 0.875, "bilinear")
    )


def _d(*repeats: int) -> Variant:
    return Variant(
        architecture=Architecture(repeats=repeats, deep_stem=True, average_shortcut=True),
        preprocessing=centre(224, 0.875, "bicubic"),
    )


def _rs(*repeats: int, size: int, share: float = 1.0, dropout_rate: float = 0.25) -> Variant:
    return Variant(
        architecture=Architecture(
            repeats=repeats,
            deep_stem=True,
            stem_pool="conv",
            average_shortcut=True,
            se_ratio=0.25,
        ),
        preprocessing=centre(size, share, "bicubic"),
        dropout_rate=dropout_rate,
    )


VARIANTS = {
    "resnet50": _plain(3, 4, 6, 3),
    "resnet101": _plain(3, 4, 23, 3),
    "resnet152": _plain(3, 8, 36, 3),
    "resnet50d": _d(3, 4, 6, 3),
    "resnet101d": _d(3, 4, 23, 3),
    "resnet152d": _d(3, 8, 36, 3),
    # Sizes are those of training.
    "resnetrs50": _rs(3, 4, 6, 3, size=160, share=0.91),
    "resnetrs101": _rs(3, 4, 23, 3, size=192, share=0.94),
    "resnetrs152": _rs(3, 8, 36, 3, size=256),
    "resnetrs200": _rs(3, 24, 36, 3, size=256),
    "resnetrs270": _rs(4, 29, 53, 4, size=256),
    "resnetrs350": _rs(4, 36, 72, 4, size=288, dropout_rate=0.4),
    "resnetrs420": _rs(4, 44, 87, 4, size=320, dropout_rate=0.4),
}


def get_variant(name: str) -> Variant:
    """The variant of that name.

    Raises:
      ValueError: there is none; the message lists the names.
    """
    if name not in VARIANTS:
        raise ValueError(f"{name!r} is no ResNet; there are {', '.join(VARIANTS)}")
    return VARIANTS[name]
