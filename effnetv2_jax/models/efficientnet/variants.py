"""The model family as literal tables.

EfficientNetV2 (paper, table 4; released code for M, L, XL and B0-B3) and its predecessor
EfficientNet (arXiv 1905.11946, table 1), of which Lite (the released code's `lite/`) is a plainer
form for small devices. A new variant is a new row of `VARIANTS`.
"""

import dataclasses
from typing import Literal

from effnetv2_jax.preprocessing import Preprocessing, cropped, squashed

Activation = Literal["silu", "relu6", "relu", "gelu"]
Operator = Literal["fused", "mbconv", "edge"]


@dataclasses.dataclass(frozen=True)
class StageSpec:
    """A run of like blocks: a row of the paper's table 4."""

    operator: Operator
    """Fused-MBConv or MBConv (paper, figure 2). `edge` is Fused-MBConv that keeps its 1x1
    convolution where `expand` is 1, as in timm's `efficientnetv2_rw_s`."""
    kernel: int
    """Height and width of its spatial convolution, in pixels."""
    stride: int
    """Of the first block; the others have stride 1."""
    expand: int
    """Hidden channels as a multiple of the block's input channels."""
    outputs: int
    """Channels that its blocks put out."""
    repeats: int
    """Number of blocks."""
    se_ratio: float = 0.0
    """Width of squeeze-and-excitation over the block's input channels; 0 leaves it out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A named model: its stages, its scale and the settings published with it."""

    stages: tuple[StageSpec, ...]
    stem: int
    """Channels of the first convolution, unscaled."""
    head: int = 1280
    """Channels of the last one, unscaled."""
    width: float = 1.0
    depth: float = 1.0
    fixed_ends: bool = False
    """Whether `width` leaves the stem and the head as they are, and `depth` the first and the last
    stage."""
    activation: Activation = "silu"
    rounding_floor: float = 0.0
    """Share of a scaled channel count that rounding has to leave; see `round_channels`."""
    train_size: int
    """Largest training image size, in pixels."""
    preprocessing: Preprocessing
    """With which it is evaluated."""
    dropout_rate: float

    @property
    def eval_size(self) -> int:
        """Image size in evaluation, in pixels."""
        return self.preprocessing.image_size


def _fused(kernel: int, stride: int, expand: int, outputs: int, repeats: int) -> StageSpec:
    return StageSpec("fused", kernel, stride, expand, outputs, repeats)


def _mbconv(kernel: int, stride: int, expand: int, outputs: int, repeats: int) -> StageSpec:
    return StageSpec("mbconv", kernel, stride, expand, outputs, repeats, 0.25)


# Columns: kernel, stride, expand, outputs, repeats.
BASE = (
    _fused(3, 1, 1, 16, 1),
    _fused(3, 2, 4, 32, 2),
    _fused(3, 2, 4, 48, 2),
    _mbconv(3, 2, 4, 96, 3),
    _mbconv(3, 1, 6, 112, 5),
    _mbconv(3, 2, 6, 192, 8),
)
S = (
    _fused(3, 1, 1, 24, 2),
    _fused(3, 2, 4, 48, 4),
    _fused(3, 2, 4, 64, 4),
    _mbconv(3, 2, 4, 128, 6),
    _mbconv(3, 1, 6, 160, 9),
    _mbconv(3, 2, 6, 256, 15),
)
M = (
    _fused(3, 1, 1, 24, 3),
    _fused(3, 2, 4, 48, 5),
    _fused(3, 2, 4, 80, 5),
    _mbconv(3, 2, 4, 160, 7),
    _mbconv(3, 1, 6, 176, 14),
    _mbconv(3, 2, 6, 304, 18),
    _mbconv(3, 1, 6, 512, 5),
)
L = (
    _fused(3, 1, 1, 32, 4),
    _fused(3, 2, 4, 64, 7),
    _fused(3, 2, 4, 96, 7),
    _mbconv(3, 2, 4, 192, 10),
    _mbconv(3, 1, 6, 224, 19),
    _mbconv(3, 2, 6, 384, 25),
    _mbconv(3, 1, 6, 640, 7),
)
XL = (
    _fused(3, 1, 1, 32, 4),
    _fused(3, 2, 4, 64, 8),
    _fused(3, 2, 4, 96, 8),
    _mbconv(3, 2, 4, 192, 16),
    _mbconv(3, 1, 6, 256, 24),
    _mbconv(3, 2, 6, 512, 32),
    _mbconv(3, 1, 6, 640, 8),
)
V1 = (
    _mbconv(3, 1, 1, 16, 1),
    _mbconv(3, 2, 6, 24, 2),
    _mbconv(5, 2, 6, 40, 2),
    _mbconv(3, 2, 6, 80, 3),
    _mbconv(5, 1, 6, 112, 3),
    _mbconv(5, 2, 6, 192, 4),
    _mbconv(3, 1, 6, 320, 1),
)
LITE = tuple(dataclasses.replace(stage, se_ratio=0.0) for stage in V1)


def _v2(
    stages: tuple[StageSpec, ...],
    stem: int,
    train_size: int,
    preprocessing: Preprocessing,
    dropout_rate: float,
    **scale: float,
) -> Variant:
    return Variant(
        stages=stages,
        stem=stem,
        train_size=train_size,
        preprocessing=preprocessing,
        dropout_rate=dropout_rate,
        **scale,  # type: ignore[arg-type]
    )


def _v1(width: float, depth: float, eval_size: int, dropout_rate: float) -> Variant:
    return Variant(
        stages=V1,
        stem=32,
        width=width,
        depth=depth,
        rounding_floor=0.9,
        train_size=eval_size * 4 // 5 // 16 * 16,
        preprocessing=cropped(eval_size),
        dropout_rate=dropout_rate,
    )


def _lite(width: float, depth: float, eval_size: int, dropout_rate: float) -> Variant:
    return dataclasses.replace(
        _v1(width, depth, eval_size, dropout_rate),
        stages=LITE,
        fixed_ends=True,
        activation="relu6",
        preprocessing=dataclasses.replace(cropped(eval_size), mean=(127.5,) * 3, std=(127.5,) * 3),
    )


VARIANTS = {
    # Columns: stages, stem, size in training, evaluation, dropout.
    "efficientnetv2-b0": _v2(BASE, 32, 192, cropped(224), 0.2),
    "efficientnetv2-b1": _v2(BASE, 32, 192, cropped(240), 0.2, depth=1.1),
    "efficientnetv2-b2": _v2(BASE, 32, 208, cropped(260), 0.3, width=1.1, depth=1.2),
    "efficientnetv2-b3": _v2(BASE, 32, 240, cropped(300), 0.3, width=1.2, depth=1.4),
    "efficientnetv2-s": _v2(S, 24, 300, squashed(384), 0.2),
    "efficientnetv2-m": _v2(M, 24, 384, squashed(480), 0.3),
    "efficientnetv2-l": _v2(L, 32, 384, squashed(480), 0.4),
    "efficientnetv2-xl": _v2(XL, 32, 384, squashed(512), 0.4),
    # Columns: width, depth, size in evaluation, dropout.
    "efficientnet-b0": _v1(1.0, 1.0, 224, 0.2),
    "efficientnet-b1": _v1(1.0, 1.1, 240, 0.2),
    "efficientnet-b2": _v1(1.1, 1.2, 260, 0.3),
    "efficientnet-b3": _v1(1.2, 1.4, 300, 0.3),
    "efficientnet-b4": _v1(1.4, 1.8, 380, 0.4),
    "efficientnet-b5": _v1(1.6, 2.2, 456, 0.4),
    "efficientnet-b6": _v1(1.8, 2.6, 528, 0.5),
    "efficientnet-b7": _v1(2.0, 3.1, 600, 0.5),
    "efficientnet-b8": _v1(2.2, 3.6, 672, 0.5),
    "efficientnet-l2": _v1(4.3, 5.3, 800, 0.5),
    "efficientnet-lite0": _lite(1.0, 1.0, 224, 0.2),
    "efficientnet-lite1": _lite(1.0, 1.1, 240, 0.2),
    "efficientnet-lite2": _lite(1.1, 1.2, 260, 0.3),
    "efficientnet-lite3": _lite(1.2, 1.4, 280, 0.3),
    "efficientnet-lite4": _lite(1.4, 1.8, 300, 0.3),
}


def get_variant(name: str) -> Variant:
    """The variant of that name.

    Raises:
      ValueError: there is none; the message lists the names.
    """
    if name not in VARIANTS:
        raise ValueError(f"{name!r} is no EfficientNet; there are {', '.join(VARIANTS)}")
    return VARIANTS[name]
