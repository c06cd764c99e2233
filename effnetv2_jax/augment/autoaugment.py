"""AutoAugment (arXiv 1805.09501) with v0, the policy for ImageNet that EfficientNet trained with.

The table is that of the released code of EfficientNet and EfficientNetV2; the one printed in the
paper is another. It has neither Contrast nor Cutout. TranslateY at level 9 moves an image out of
its frame if that is no higher than 225 pixels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float32, Int32, PRNGKeyArray, UInt8

from effnetv2_jax.augment import geometry
from effnetv2_jax.augment.operations import OPERATIONS, Layers, apply_layers

V0 = (
    (("Equalize", 0.8, 1), ("ShearY", 0.8, 4)),
    (("Color", 0.4, 9), ("Equalize", 0.6, 3)),
    (("Color", 0.4, 1), ("Rotate", 0.6, 8)),
    (("Solarize", 0.8, 3), ("Equalize", 0.4, 7)),
    (("Solarize", 0.4, 2), ("Solarize", 0.6, 2)),
    (("Color", 0.2, 0), ("Equalize", 0.8, 8)),
    (("Equalize", 0.4, 8), ("SolarizeAdd", 0.8, 3)),
    (("ShearX", 0.2, 9), ("Rotate", 0.6, 8)),
    (("Color", 0.6, 1), ("Equalize", 1.0, 2)),
    (("Invert", 0.4, 9), ("Rotate", 0.6, 0)),
    (("Equalize", 1.0, 9), ("ShearY", 0.6, 3)),
    (("Color", 0.4, 7), ("Equalize", 0.6, 0)),
    (("Posterize", 0.4, 6), ("AutoContrast", 0.4, 7)),
    (("Solarize", 0.6, 8), ("Color", 0.6, 9)),
    (("Solarize", 0.2, 4), ("Rotate", 0.8, 9)),
    (("Rotate", 1.0, 7), ("TranslateY", 0.8, 9)),
    (("ShearX", 0.0, 0), ("Solarize", 0.8, 4)),
    (("ShearY", 0.8, 0), ("Color", 0.6, 4)),
    (("Color", 1.0, 0), ("Rotate", 0.6, 2)),
    (("Equalize", 0.8, 4), ("Equalize", 0.0, 8)),
    (("Equalize", 1.0, 4), ("AutoContrast", 0.6, 2)),
    (("ShearY", 0.4, 7), ("SolarizeAdd", 0.6, 7)),
    (("Posterize", 0.8, 2), ("Solarize", 0.6, 10)),
    (("Solarize", 0.6, 8), ("Equalize", 0.6, 1)),
    (("Color", 0.8, 6), ("Rotate", 0.4, 5)),
)
"""25 sub-policies of two operations: name, probability, level."""

_NUMBERS = np.array([[OPERATIONS.index(name) for name, _, _ in pair] for pair in V0], np.int32)
_PROBABILITIES = np.array([[probability for _, probability, _ in pair] for pair in V0], np.float32)
_LEVELS = np.array([[level for _, _, level in pair] for pair in V0], np.float32)


def autoaugment(
    key: PRNGKeyArray,
    image: UInt8[Array, "H W 3"],
    *,
    contrast_fault: bool = False,
    translate_const: float = 250.0,
    cutout_const: float = 100.0,
) -> UInt8[Array, "H W 3"]:
    """Draws a sub-policy of `V0` uniformly; applies each of its operations with its probability.

    Args:
      key: PRNG key of this image.
      image: uint8 [H, W, 3], H and W at least 3.
      contrast_fault, translate_const, cutout_const: see `operations.apply_numbered`; as the policy
        has neither Contrast nor Cutout, only the second matters.

    Returns:
      uint8 [H, W, 3].
    """
    subpolicy, applied, sign, centre = draw(key, *image.shape[:2])
    number = jnp.where(applied, jnp.asarray(_NUMBERS)[subpolicy], -1)
    return apply_layers(
        Layers(number, jnp.asarray(_LEVELS)[subpolicy], sign, centre),
        image,
        contrast_fault=contrast_fault,
        translate_const=translate_const,
        cutout_const=cutout_const,
    )


def draw(
    key: PRNGKeyArray, height: int, width: int
) -> tuple[Int32[Array, ""], Bool[Array, "2"], Float32[Array, "2"], Int32[Array, "2 2"]]:
    """Draws what is random for an image, all of it independently.

    Args:
      key: PRNG key of the image.
      height, width: of the image.

    Returns:
      The sub-policy's place in `V0` (int32), and for each of its two operations whether it is
      applied (bool [2]), its sign (float32 [2], 1 or -1), and the row and column of Cutout's centre
      (int32 [2, 2]).
    """
    subpolicy_key, applied_key, sign_key, centre_key = jax.random.split(key, 4)
    subpolicy = jax.random.randint(subpolicy_key, (), 0, len(V0), jnp.int32)
    probability = jnp.asarray(_PROBABILITIES)[subpolicy]
    applied = jax.random.uniform(applied_key, (2,), jnp.float32) < probability
    sign = geometry.random_sign(sign_key, (2,))
    centre_keys = jax.random.split(centre_key)
    centre = jax.vmap(lambda key: geometry.random_pixel(key, height, width))(centre_keys)
    return subpolicy, applied, sign, centre
