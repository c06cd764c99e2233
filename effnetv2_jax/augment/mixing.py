"""Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) within groups of a batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, PRNGKeyArray

from effnetv2_jax.augment.places import Part, keys_at


class MixedBatch(NamedTuple):
    """Images that blend two examples each, and the labels of both."""

    images: Float[Array, "B H W C"]
    """[B, H, W, C], the dtype of the images given."""
    labels: Int[Array, "B ..."]
    """int [B, ...], of the example itself."""
    partner_labels: Int[Array, "B ..."]
    """int [B, ...], of the example mixed into it."""
    weight: Float[Array, " B"]
    """[B] in [0, 1], float32 or the images' wider dtype: of the own label; the partner's weighs
    1 - weight."""


def mix(
    key: PRNGKeyArray,
    images: Float[Array, "B H W C"],
    labels: Int[Array, "B ..."],
    *,
    mixup_alpha: ArrayLike,
    cutmix_alpha: ArrayLike,
    group: int | None = None,
    per_batch: bool = False,
    part: Part | None = None,
) -> MixedBatch:
    """Mixes every example with its partner: its mirror image in the order of its group.

    With both alphas above 0, mixup takes the examples at even places of the batch and CutMix those
    at odd places; with one above 0 it takes all. An example's share is drawn from Beta(alpha,
    alpha) and, for mixup, is at least 1/2. For CutMix it sets the box's area before the box is cut
    off at the image's border, and `weight` follows from what remains of the box.

    With `per_batch` one draw serves all examples, as in timm and DeiT: the share, the box and, with
    both alphas above 0, which of the two there is, each with probability 1/2.

    Args:
      key: PRNG key of the batch; an example's draws depend on it and on the example's place only.
      images: float [B, H, W, C].
      labels: int [B, ...].
      mixup_alpha: 0 or above; may be traced.
      cutmix_alpha: 0 or above; may be traced. With both 0, images return bit for bit, weights 1.
      per_batch: one draw for all, in place of one for each.
      group: examples to a group, a divisor of B; None is the whole batch. Groups that lie within
        shards need no communication, and give the same result on any number of devices.
      part: which of a batch the images are, partners among them; None is all of it.

    Returns:
      A `MixedBatch`.
    """
    batch, height, width, _ = images.shape
    group = batch if group is None else group
    if batch % group:
        raise ValueError(f"group ({group}) does not divide the batch ({batch})")
    dtype = jnp.promote_types(images.dtype, jnp.float32)
    mixup = jnp.asarray(mixup_alpha, dtype)
    cutmix = jnp.asarray(cutmix_alpha, dtype)

    def own_share(key: Array, place: Array) -> Array:
        """[H, W, 1]: how much of the example itself each of its pixels keeps."""
        share_key, box_key = jax.random.split(key)
        by_mixup = (mixup > 0) & ((cutmix <= 0) | (place % 2 == 0))
        alpha = jnp.where(by_mixup, mixup, cutmix)
        share = _beta(share_key, alpha)
        box = _random_box(box_key, 1 - share, height, width)
        blended = jnp.maximum(share, 1 - share)
        return jnp.where(alpha > 0, jnp.where(by_mixup, blended, jnp.where(box, 0.0, 1.0)), 1.0)

    if per_batch:
        share_key, which_key = jax.random.split(key)
        which = jax.random.randint(which_key, (), 0, 2, jnp.int32)
        shares = jnp.broadcast_to(own_share(share_key, which), (batch, height, width, 1))
    else:
        places = jnp.arange(batch, dtype=jnp.int32)
        if part is not None:
            places += part.first
        shares = jax.vmap(own_share)(keys_at(key, batch, part), places)
    weight = jnp.mean(shares, axis=(1, 2, 3))
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
    """A scalar of alpha's dtype from Beta(alpha, alpha); 1e-3 stands for smaller alphas."""
    # Of two Gamma draws the first one's share, from their logarithms: a draw for an alpha near 0
    # underflows. One call for both compiles in half of jax.random.beta's time.
    logarithms = jax.random.loggamma(key, jnp.maximum(alpha, 1e-3), (2,), alpha.dtype)
    return jax.nn.sigmoid(logarithms[0] - logarithms[1])


def _random_box(key: Array, area: Array, height: int, width: int) -> Array:
    """bool [H, W, 1]: CutMix's box, of the image's shape, its centre uniform over the image."""

    def span(key: Array, length: int) -> Array:
        half = (jnp.sqrt(area) * length).astype(jnp.int32) // 2
        centre = jax.random.randint(key, (), 0, length, jnp.int32)
        place = jnp.arange(length, dtype=jnp.int32)
        return (place >= centre - half) & (place < centre + half)

    row_key, column_key = jax.random.split(key)
    return (span(row_key, height)[:, None] & span(column_key, width)[None, :])[:, :, None]
