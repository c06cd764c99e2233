"""RandAugment (arXiv 1909.13719) as EfficientNetV2 uses it."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float32, Int32, PRNGKeyArray, UInt8

from effnetv2_jax.augment import geometry
from effnetv2_jax.augment.operations import (
    CUTOUT_CONST,
    OPERATIONS,
    TRANSLATE_CONST,
    Layers,
    apply_layers,
)


def randaugment(
    key: PRNGKeyArray,
    image: UInt8[Array, "H W 3"],
    magnitude: ArrayLike,
    *,
    layers: int = 2,
    contrast_fault: bool = False,
    translate_const: float = TRANSLATE_CONST,
    cutout_const: float = CUTOUT_CONST,
) -> UInt8[Array, "H W 3"]:
    """Applies operations drawn uniformly from all sixteen, one after another, always.

    Args:
      key: PRNG key of this image.
      image: uint8 [H, W, 3], H and W at least 3.
      magnitude: level of all operations, 0 to 10 or above; may be traced.
      layers: how many operations are drawn.
      contrast_fault, translate_const, cutout_const: see `operations.apply_numbered`.

    Returns:
      uint8 [H, W, 3].
    """
    height, width, _ = image.shape
    keys = jax.random.split(key, layers)
    number, sign, centre = jax.vmap(lambda key: draw(key, height, width))(keys)
    return apply_layers(
        Layers(number, jnp.full(layers, magnitude, jnp.float32), sign, centre),
        image,
        contrast_fault=contrast_fault,
        translate_const=translate_const,
        cutout_const=cutout_const,
    )


def draw(
    key: PRNGKeyArray, height: int, width: int, *, count: int = len(OPERATIONS)
) -> tuple[Int32[Array, ""], Float32[Array, ""], Int32[Array, "2"]]:
    """Draws what is random in a layer, each uniformly.

    Args:
      key: PRNG key of the layer.
      height, width: of the image.
      count: how many of `OPERATIONS` are drawn from, from the first on.

    Returns:
      The operation's number (int32), the sign (float32, 1 or -1), and the row and column of
      Cutout's centre (int32 [2]).
    """
    number_key, sign_key, centre_key = jax.random.split(key, 3)
    return (
        jax.random.randint(number_key, (), 0, count, jnp.int32),
        geometry.random_sign(sign_key),
        geometry.random_pixel(centre_key, height, width),
    )
