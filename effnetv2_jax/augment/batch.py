"""What the training step does to a batch of images before the network sees it."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from effnetv2_jax.augment import geometry, policies


def augment_batch(
    key: Array,
    images: Array,
    magnitude: ArrayLike = 0.0,
    *,
    flip: bool = True,
    policy: Literal["randaugment", "none"] = "randaugment",
    layers: int = 2,
    contrast_fault: bool = False,
    translate_const: float = 100.0,
    cutout_const: float = 40.0,
) -> Array:
    """Flips and augments every image of a batch, each by a key of its own.

    Args:
      key: PRNG key of the batch; an image's draws depend on it and on the image's place only, so
        they are the same however the batch is sharded.
      images: uint8 [B, H, W, 3].
      magnitude: of RandAugment, 0 to 10 or above; may be traced.
      flip: mirror half of the images, before the policy.
      policy: what else is applied.
      layers: operations RandAugment applies to each image.
      contrast_fault, translate_const, cutout_const: see `policies.apply_numbered`.

    Returns:
      uint8 [B, H, W, 3].
    """
    if policy not in ("randaugment", "none"):
        raise ValueError(f"{policy!r} is neither 'randaugment' nor 'none'")

    def augment(key: Array, image: Array) -> Array:
        flip_key, policy_key = jax.random.split(key)
        if flip:
            image = geometry.random_flip(flip_key, image)
        if policy == "randaugment":
            image = policies.randaugment(
                policy_key,
                image,
                magnitude,
                layers=layers,
                contrast_fault=contrast_fault,
                translate_const=translate_const,
                cutout_const=cutout_const,
            )
        return image

    return jax.vmap(augment)(jax.random.split(key, images.shape[0]), images)


def normalize(
    images: Array, mean: Sequence[float], std: Sequence[float], dtype: DTypeLike = jnp.float32
) -> Array:
    """Centres and scales grey levels: (images - mean) / std, computed in float32.

    Args:
      images: uint8 [..., 3].
      mean, std: one per channel, on the scale of grey levels, 0 to 255.
      dtype: of the result.

    Returns:
      dtype [..., 3].
    """
    scaled = (images.astype(jnp.float32) - jnp.float32(mean)) / jnp.float32(std)
    return scaled.astype(dtype)
