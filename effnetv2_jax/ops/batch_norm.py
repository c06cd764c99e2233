"""Batch statistics over fixed groups of examples."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Shaped


def group_moments(
    x: Float[Array, "B H W C"], group: int | None
) -> tuple[Float[Array, "G 1 1 1 C"], Float[Array, "G 1 1 1 C"]]:
    """Mean and biased variance per channel, over each group of neighbouring examples.

    Groups are counted in examples, not in devices, so that a run means the same on any number of
    devices; where a device holds whole groups they cost no communication.

    Args:
      x: `[B, H, W, C]`, any floating dtype.
      group: examples per group, a divisor of B; None takes the whole batch as one group.

    Returns:
      Mean and variance, each `[G, 1, 1, 1, C]` for G groups, in float32 or x's wider dtype.

    Raises:
      ValueError: `group` does not divide the batch.
    """
    grouped = split_groups(x, group)
    grouped = grouped.astype(jnp.promote_types(x.dtype, jnp.float32))
    axes = (1, 2, 3)
    mean = grouped.mean(axes, keepdims=True)
    # E[x^2] - E[x]^2 reads the activations once; rounding may leave it just below zero.
    variance = jnp.maximum(jnp.square(grouped).mean(axes, keepdims=True) - jnp.square(mean), 0)
    return mean, variance


def split_groups(x: Shaped[Array, " B *rest"], group: int | None) -> Shaped[Array, "G N *rest"]:
    """Reshapes `[B, ...]` to `[B / group, group, ...]`; None makes one group of the batch."""
    batch = x.shape[0]
    size = group or batch
    if batch % size:
        raise ValueError(f"a batch of {batch} examples does not divide into groups of {size}")
    return x.reshape(batch // size, size, *x.shape[1:])
