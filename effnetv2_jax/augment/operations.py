"""The operations that RandAugment and AutoAugment choose from.

An operation is a number, and a layer applies operation number i to an image by one computation
that serves all of them: a table of grey levels, a blend with a degenerate image, a mask and an
affine gather, of which at most one is not the identity. Under `vmap` every image of a batch can
thus draw another operation at the cost of one, where `lax.switch` would run all sixteen.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Integer, UInt8

from effnetv2_jax.augment import color, geometry

OPERATIONS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "Cutout",
)
"""An operation's number is its place here."""

TRANSLATE_CONST = 100.0
"""Pixels that Translate moves an image by at level 10, unless a policy has its own."""
CUTOUT_CONST = 40.0
"""Half the side of Cutout's square at level 10, in pixels, likewise."""


def apply_operation(
    name: str,
    image: UInt8[Array, "H W 3"],
    level: ArrayLike,
    *,
    sign: ArrayLike = 1.0,
    centre: ArrayLike | Sequence[ArrayLike] | None = None,
    contrast_fault: bool = False,
    translate_const: float = TRANSLATE_CONST,
    cutout_const: float = CUTOUT_CONST,
) -> UInt8[Array, "H W 3"]:
    """Applies one operation, chosen by name. See `apply_numbered` for what a level means.

    Args:
      name: one of `OPERATIONS`.
      image: uint8 [H, W, 3].
      level: 0 to 10, or above.
      sign: 1 or -1, of Rotate, Shear and Translate.
      centre: row and column of Cutout's square; None is the middle of the image.
      contrast_fault, translate_const, cutout_const: see `apply_numbered`.

    Returns:
      uint8 [H, W, 3].
    """
    if name not in OPERATIONS:
        raise ValueError(f"{name!r} is not one of {', '.join(OPERATIONS)}")
    height, width, _ = image.shape
    return apply_numbered(
        jnp.int32(OPERATIONS.index(name)),
        image,
        level,
        sign=sign,
        centre=jnp.asarray((height // 2, width // 2) if centre is None else centre, jnp.int32),
        contrast_fault=contrast_fault,
        translate_const=translate_const,
        cutout_const=cutout_const,
    )


def apply_numbered(
    number: Integer[Array, ""],
    image: UInt8[Array, "H W 3"],
    level: ArrayLike,
    *,
    sign: ArrayLike,
    centre: Integer[Array, "2"],
    contrast_fault: bool = False,
    translate_const: float = TRANSLATE_CONST,
    cutout_const: float = CUTOUT_CONST,
) -> UInt8[Array, "H W 3"]:
    """Applies one operation, chosen by a number that may be traced.

    At level L:
      AutoContrast, Equalize, Invert: the same at any level.
      Rotate: by 3 L degrees. ShearX, ShearY: by 0.03 L.
      TranslateX, TranslateY: by translate_const * L / 10 pixels, whatever the image's size; an
        image that leaves its frame is all fill.
      Posterize: keeps int(0.4 L) bits; the highest below level 5, all 8 from level 20 on.
      Solarize: inverts the grey levels from int(25.6 L) on; none from level 10 on.
      SolarizeAdd: adds int(11 L) to grey levels below 128, clipped to 255.
      Color, Contrast, Brightness, Sharpness: factor 0.18 L + 0.1, which is 1 (unchanged) at level
        5 and grows without end; the result is clipped to [0, 255].
      Cutout: a square of half-side int(cutout_const * L / 10) pixels, whatever the image's size.

    Args:
      number: int scalar, place in `OPERATIONS`; -1 returns the image bit for bit.
      image: uint8 [H, W, 3].
      level: 0 to 10, or above; may be traced.
      sign: 1 or -1, of Rotate, Shear and Translate.
      centre: int [2], row and column of Cutout's square.
      contrast_fault: repeats the released code's Contrast, see `color.faulty_mean_grey`.
      translate_const: pixels of a translation at level 10.
      cutout_const: half the side of Cutout's square at level 10, in pixels.

    Returns:
      uint8 [H, W, 3].
    """

    def when(name: str, value: Array, otherwise: ArrayLike) -> Array:
        return jnp.where(number == OPERATIONS.index(name), value, otherwise)

    height, width, _ = image.shape
    level = jnp.asarray(level, jnp.float32)
    signed = level * jnp.asarray(sign, jnp.float32)

    matrix = geometry.affine_matrix(
        height,
        width,
        degrees=when("Rotate", signed * 3, 0.0),
        shear_x=when("ShearX", signed * 0.3 / 10, 0.0),
        shear_y=when("ShearY", signed * 0.3 / 10, 0.0),
        translate_x=when("TranslateX", signed * translate_const / 10, 0.0),
        translate_y=when("TranslateY", signed * translate_const / 10, 0.0),
    )
    image = geometry.affine(image, matrix)

    counts = color.histogram(image)
    tables = {
        "AutoContrast": color.autocontrast_table(counts),
        "Equalize": color.equalize_table(counts),
        "Invert": color.invert_table(),
        "Posterize": color.posterize_table(_truncated(level, 4)),
        "Solarize": color.solarize_table(_truncated(level, 256)),
        "SolarizeAdd": color.solarize_add_table(_truncated(level, 110)),
    }
    drawn = jnp.stack([number == OPERATIONS.index(name) for name in tables])
    drawn = jnp.append(drawn, ~jnp.any(drawn))
    stacked = jnp.stack([*tables.values(), color.identity_table()])
    table = jnp.einsum("t,tvc->vc", drawn.astype(jnp.float32), stacked.astype(jnp.float32))

    image = color.look_up(image, table)

    mean = color.faulty_mean_grey(image) if contrast_fault else color.mean_grey(image)
    degenerate = when("Contrast", mean.astype(jnp.uint8), jnp.uint8(0))
    degenerate = when("Color", color.grey(image), degenerate)
    degenerate = when("Sharpness", color.smooth(image), degenerate)
    enhancing = (number >= OPERATIONS.index("Color")) & (number <= OPERATIONS.index("Sharpness"))
    factor = jnp.where(enhancing, 0.18 * level + 0.1, 1.0)

    half_side = when("Cutout", _truncated(level, cutout_const), 0)
    hidden = geometry.square_mask(height, width, centre, half_side)

    image = color.blend(degenerate, image, factor)
    return jnp.where(hidden, jnp.uint8(geometry.FILL), image)


def _truncated(level: Array, constant: float) -> Array:
    # The small addend keeps a traced 10.0 that arrives as 9.999999 from losing a bit or a step.
    return jnp.floor(level * constant / 10 + 1e-4).astype(jnp.int32)


class Layers(NamedTuple):
    """What a policy has drawn for an image: a layer is an entry of each array."""

    number: Array
    """int32 [layers], places in `OPERATIONS`, or -1 for no operation."""
    level: Array
    """float32 [layers]."""
    sign: Array
    """float32 [layers], 1 or -1."""
    centre: Array
    """int32 [layers, 2], row and column of Cutout's square."""


def apply_layers(
    layers: Layers,
    image: UInt8[Array, "H W 3"],
    *,
    contrast_fault: bool,
    translate_const: float,
    cutout_const: float,
) -> UInt8[Array, "H W 3"]:
    """Applies the operations of several layers, one after another.

    Args:
      layers: number, level, sign and centre of each, see `apply_numbered`.
      image: uint8 [H, W, 3], H and W at least 3.
      contrast_fault, translate_const, cutout_const: see `apply_numbered`.

    Returns:
      uint8 [H, W, 3].
    """

    def apply(image: Array, layer: Layers) -> tuple[Array, None]:
        augmented = apply_numbered(
            layer.number,
            image,
            layer.level,
            sign=layer.sign,
            centre=layer.centre,
            contrast_fault=contrast_fault,
            translate_const=translate_const,
            cutout_const=cutout_const,
        )
        return augmented, None

    # A scan compiles one layer, and keeps XLA from fusing a layer into the gather of the next.
    return jax.lax.scan(apply, image, layers)[0]
