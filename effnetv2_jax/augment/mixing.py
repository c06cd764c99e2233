"""Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) within groups of a batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


class MixedBatch(NamedTuple):
    """Images that blend two examples each, and the labels of both."""

    images: Array
    """[B, H, W, C], the dtype of the images given."""
    labels: Array
    """int [B], of the example itself."""
    partner_labels: Array
    """int [B], of the example mixed into it."""
    weight: Array
    """float32 [B] in [0, 1]: of the own label; the partner's weighs 1 - weight."""


def mix(
    key: Array,
    images: Array,
    labels: Array,
    *,
    mixup_alpha: ArrayLike,
    cutmix_alpha: ArrayLike,
    group: int | None = None,
) -> MixedBatch:
    """Mixes every example with its partner: its mirror image in the order of its group.

    With both alphas above 0, mixup takes the examples at even places of the batch and CutMix those
    at odd places; with one above 0 it takes all. An example's share is drawn from Beta(alpha,
    alpha) and, for mixup, is at least 1/2. For CutMix it sets the box's area before the box is cut
    off at the image's border, and `weight` follows from what remains of the box.

    Args:
      key: PRNG key of the batch; an example's draws depend on it and on the example's place only.
      images: float [B, H, W, C].
      labels: int [B].
      mixup_alpha: 0 or above; may be traced.
      cutmix_alpha: 0 or above; may be traced. With both 0, images return bit for bit, weights 1.
      group: examples to a group, a divisor of B; None is the whole batch. Groups that lie within
        shards need no communication, and give the same result on any number of devices.

    Returns:
      A `MixedBatch`.
    """
    batch, height, width, _ = images.shape
    group = batch if group is None else group
    if batch % group:
        raise ValueError(f"group ({group}) does not divide the batch ({batch})")
    mixup_alpha = jnp.float32(mixup_alpha)
    cutmix_alpha = jnp.float32(cutmix_alpha)

    def own_share(key: Array, place: Array) -> Array:
        """float32 [H, W, 1]: how much of the example itself each of its pixels keeps."""
        mixup_key, box_key = jax.random.split(key)
        mixup_turn = (cutmix_alpha <= 0) | (place % 2 == 0)
        mixup_here = (mixup_alpha > 0) & mixup_turn
        cutmix_here = (cutmix_alpha > 0) & ~mixup_here
        share = _beta(mixup_key, mixup_alpha)
        share = jnp.where(mixup_here, jnp.maximum(share, 1 - share), 1.0)
        pasted = cutmix_here & _random_box(box_key, cutmix_alpha, height, width)
        return jnp.where(pasted, 0.0, share)

    shares = jax.vmap(own_share)(jax.random.split(key, batch), jnp.arange(batch))
    weight = jnp.mean(shares, axis=(1, 2, 3), dtype=jnp.float32)
    partners = _reverse_groups(images, group)
    mixed = shares * images + (1 - shares) * partners
    return MixedBatch(
        images=jnp.where(shares == 1, images, mixed.astype(images.dtype)),
        labels=labels,
        partner_labels=_reverse_groups(labels, group),
        weight=weight,
    )


def _reverse_groups(values: Array, group: int) -> Array:
    grouped = values.reshape(-1, group, *values.shape[1:])
    return grouped[:, ::-1].reshape(values.shape)


def _beta(key: Array, alpha: Array) -> Array:
    # Where alpha is 0 the draw is thrown away, but it must not become NaN.
    alpha = jnp.maximum(alpha, 1e-3)
    return jax.random.beta(key, alpha, alpha, dtype=jnp.float32)


def _random_box(key: Array, alpha: Array, height: int, width: int) -> Array:
    """bool [H, W, 1]: CutMix's box, its centre uniform over the image."""
    area_key, row_key, column_key = jax.random.split(key, 3)
    side = jnp.sqrt(1 - _beta(area_key, alpha))

    def span(key: Array, length: int) -> Array:
        half = (side * length).astype(jnp.int32) // 2
        centre = jax.random.randint(key, (), 0, length, jnp.int32)
        place = jnp.arange(length, dtype=jnp.int32)
        return (place >= centre - half) & (place < centre + half)

    return (span(row_key, height)[:, None] & span(column_key, width)[None, :])[:, :, None]
