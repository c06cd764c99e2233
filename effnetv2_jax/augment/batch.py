"""What the training step does to a batch of images before the network sees it."""

from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float, PRNGKeyArray, UInt8

from effnetv2_jax.augment import geometry
from effnetv2_jax.augment.autoaugment import autoaugment
from effnetv2_jax.augment.increasing import increasing
from effnetv2_jax.augment.places import Part, keys_at
from effnetv2_jax.augment.randaugment import randaugment

Policy = Literal["randaugment", "increasing", "autoaugment", "none"]


def augment_batch(
    key: PRNGKeyArray,
    images: UInt8[Array, "B H W C"],
    magnitude: ArrayLike = 0.0,
    *,
    flip: bool = True,
    policy: Policy = "randaugment",
    layers: int = 2,
    deviation: float = 0.0,
    contrast_fault: bool = False,
    translate_const: float | None = None,
    cutout_const: float | None = None,
    cutout: float = 0.0,
    part: Part | None = None,
) -> UInt8[Array, "B H W C"]:
    """Flips and augments every image of a batch, each by a key of its own.

    Args:
      key: PRNG key of the batch; an image's draws depend on it and on the image's place only, so
        they are the same however the batch is sharded.
      images: uint8 [B, H, W, C]. The policies take C = 3, RGB, or C = 1: grey, which becomes what
        it would as RGB of three equal channels.
      magnitude: of RandAugment, 0 to 10 or above; may be traced.
      flip: mirror half of the images, before the policy.
      policy: the law by which operations are drawn; "none" applies none.
      layers: operations RandAugment applies to each image.
      deviation: of the levels of "increasing", see there.
      contrast_fault: see `operations.apply_numbered`.
      translate_const, cutout_const: likewise; None is the policy's own.
      cutout: after the policy, a square of noise with this share of the image's shorter side,
        rounded down to an even number of pixels, hides part of every image; 0 leaves it out.
      part: which of a batch the images are; None is all of it.

    Returns:
      uint8 [B, H, W, C].

    Raises:
      ValueError: there is no such policy, or it does not take so many channels.
    """
    if policy not in get_args(Policy):
        raise ValueError(f"{policy!r} is not one of {', '.join(get_args(Policy))}")
    channels = images.shape[-1]
    if policy != "none" and channels not in (1, 3):
        raise ValueError(f"{policy!r} takes images of 1 or 3 channels, not of {channels}")
    grey = policy != "none" and channels == 1
    constants = {"translate_const": translate_const, "cutout_const": cutout_const}
    stated = {name: value for name, value in constants.items() if value is not None}
    side = int(cutout * min(images.shape[1:3]))

    def augment(key: PRNGKeyArray, image: UInt8[Array, "H W C"]) -> UInt8[Array, "H W C"]:
        flip_key, policy_key, cutout_key = jax.random.split(key, 3)
        if flip:
            image = geometry.random_flip(flip_key, image)
        if grey:
            image = jnp.repeat(image, 3, axis=-1)
        if policy == "randaugment":
            image = randaugment(
                policy_key,
                image,
                magnitude,
                layers=layers,
                contrast_fault=contrast_fault,
                **stated,
            )
        elif policy == "increasing":
            image = increasing(
                policy_key,
                image,
                magnitude,
                layers=layers,
                deviation=deviation,
                contrast_fault=contrast_fault,
            )
        elif policy == "autoaugment":
            image = autoaugment(policy_key, image, contrast_fault=contrast_fault, **stated)
        if grey:
            image = image[..., :1]
        if side:
            image = geometry.cutout(cutout_key, image, side=side)
        return image

    return jax.vmap(augment)(keys_at(key, images.shape[0], part), images)


def normalize(
    images: UInt8[Array, "*outer C"],
    mean: Sequence[float],
    std: Sequence[float],
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, "*outer C"]:
    """Centres and scales grey levels: (images - mean) / std, computed in float32.

    Args:
      images: uint8 [..., C].
      mean, std: one per channel, on the scale of grey levels, 0 to 255.
      dtype: of the result.

    Returns:
      dtype [..., C].
    """
    scaled = (images.astype(jnp.float32) - jnp.float32(mean)) / jnp.float32(std)
    return scaled.astype(dtype)
