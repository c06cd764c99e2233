"""RandAugment as DeiT uses it (arXiv 2012.12877): timm's policy `rand-mM-mstdS-inc1`.

It differs from the paper's RandAugment in five points. Each layer does nothing in half of the
cases. The level is drawn from a normal distribution. At a higher level every operation distorts
more, where the paper's Posterize, Solarize, Color, Contrast, Brightness and Sharpness are mildest
somewhere else. Translations are relative to the image's width, and there is no Cutout.

Fill and interpolation of the geometric operations are those of `operations`.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Integer, PRNGKeyArray, UInt8

from effnetv2_jax.augment.operations import CUTOUT_CONST, OPERATIONS, Layers, apply_layers
from effnetv2_jax.augment.randaugment import draw

PROBABILITY = 0.5
"""Of a layer, that it does anything."""
LARGEST_LEVEL = 10.0
TRANSLATE = 0.45
"""Share of the image's width that Translate moves it by at level 10."""


def increasing(
    key: PRNGKeyArray,
    image: UInt8[Array, "H W 3"],
    magnitude: ArrayLike,
    *,
    layers: int = 2,
    deviation: float = 0.5,
    contrast_fault: bool = False,
) -> UInt8[Array, "H W 3"]:
    """Applies randomly drawn operations, each at a level drawn around `magnitude`.

    Args:
      key: PRNG key of this image.
      image: uint8 [H, W, 3], H and W at least 3.
      magnitude: mean of the levels, 0 to 10; may be traced.
      layers: how many operations are drawn.
      deviation: standard deviation of the levels, which are clipped to 0 to 10.
      contrast_fault: see `operations.apply_numbered`.

    Returns:
      uint8 [H, W, 3].
    """
    height, width, _ = image.shape

    def draw_layer(key: Array) -> Layers:
        operation_key, level_key, skip_key = jax.random.split(key, 3)
        number, sign, centre = draw(operation_key, height, width, count=OPERATIONS.index("Cutout"))
        level = magnitude + deviation * jax.random.normal(level_key, (), jnp.float32)
        level = as_level(number, jnp.clip(level, 0.0, LARGEST_LEVEL), sign)
        skipped = jax.random.uniform(skip_key) >= PROBABILITY
        return Layers(jnp.where(skipped, -1, number), level, sign, centre)

    return apply_layers(
        jax.vmap(draw_layer)(jax.random.split(key, layers)),
        image,
        contrast_fault=contrast_fault,
        translate_const=TRANSLATE * width,
        cutout_const=CUTOUT_CONST,
    )


def as_level(
    number: Integer[Array, ""], level: Float[Array, ""], sign: Float[Array, ""]
) -> Float[Array, ""]:
    """The level at which `operations` does what an increasing operation does at `level`.

    Posterize keeps 4 - int(0.4 L) bits, Solarize inverts from 256 - int(25.6 L) on, and Color,
    Contrast, Brightness and Sharpness have the factor 1 + sign * 0.09 L. The others are as they
    are there.

    Args:
      number: int scalar, place in `OPERATIONS`.
      level: 0 to 10.
      sign: 1 or -1.
    """
    # The small addend keeps a traced 10.0 that arrives as 9.999999 from losing a bit or a step.
    bits = 4 - jnp.floor(level * 0.4 + 1e-4)
    threshold = 256 - jnp.floor(level * 25.6 + 1e-4)
    first, last = (OPERATIONS.index(name) for name in ("Color", "Sharpness"))
    return jnp.select(
        [
            number == OPERATIONS.index("Posterize"),
            number == OPERATIONS.index("Solarize"),
            (number >= first) & (number <= last),
        ],
        [bits / 0.4, threshold / 25.6, 5 + sign * level / 2],
        level,
    )
