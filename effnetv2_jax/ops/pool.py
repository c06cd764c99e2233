"""ResNet's pooling, which halves the resolution, sizes rounded up, as PyTorch computes it.

Of a maximum's gradient XLA's CPU backend makes a loop over windows, which takes several times as
long as whole rows at once; so the maximum is a primitive, one way and the other.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.interpreters import ad
from jaxtyping import Float

from effnetv2_jax.ops.per_platform import (
    computed_once,
    only_plain_operations,
    platform_primitive,
)


def average_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B _ _ C"]:
    """The mean over 2x2 pixels; at the far edges of odd sizes over those in the image."""
    edges = [(0, x.shape[1] % 2), (0, x.shape[2] % 2)]
    sums = _over_windows(lax.add, 0, x, 2, edges)
    in_image = [np.full(length, 2) for length in sums.shape[1:3]]
    for count, (_, beyond) in zip(in_image, edges):
        count[-1] -= beyond
    rows, columns = in_image
    return sums / np.multiply.outer(rows, columns)[:, :, None].astype(x.dtype)


def max_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B _ _ C"]:
    """The maximum over 3x3 pixels around every other pixel, as far as they are in the image.

    Its gradient goes to the first of equal pixels, by rows.
    """
    if only_plain_operations():
        # jax2onnx has its own `nn.max_pool`, which leaves the padding out.
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
        return nn.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding="VALID")
    return _forward.bind(x)


def _plain(x: jax.Array) -> jax.Array:
    return _over_windows(lax.max, -jnp.inf, x, 3, [(1, 1), (1, 1)])


def _over_windows(
    reduce: Any, start: float, x: jax.Array, side: int, edges: list[tuple[int, int]]
) -> jax.Array:
    padding = ((0, 0), *edges, (0, 0))
    return lax.reduce_window(
        x, np.array(start, x.dtype), reduce, (1, side, side, 1), (1, 2, 2, 1), padding
    )


def _plain_along(x: jax.Array, t: jax.Array) -> jax.Array:
    """Of `t`, of x's shape, what is where each maximum of x is."""
    return jax.jvp(_plain, (x,), (t,))[1]


def _plain_back(x: jax.Array, dy: jax.Array) -> jax.Array:
    """The transpose of `_plain_along` in `t`."""
    return jax.vjp(_plain, x)[1](dy)[0]


def _on_cpu(x: jax.Array) -> jax.Array:
    return _largest(_largest(x, 2), 1)


def _back_on_cpu(x: jax.Array, dy: jax.Array) -> jax.Array:
    of_rows = computed_once(_largest, x, axis=2)
    of_rows_back = computed_once(_to_largest, of_rows, dy, axis=1)
    return computed_once(_to_largest, x, of_rows_back, axis=2)


def _largest(x: jax.Array, axis: int) -> jax.Array:
    """The largest of every even place along an axis and of its two neighbours."""
    even, odd = _split(x, axis)
    return jnp.maximum(jnp.maximum(_moved(odd, axis, 1, -1, -jnp.inf), even), odd)


def _to_largest(x: jax.Array, dy: jax.Array, axis: int) -> jax.Array:
    """The gradient of `_largest`, all of it to the first of equal ones."""
    even, odd = _split(x, axis)
    before = _moved(odd, axis, 1, -1, -jnp.inf)
    is_before = (before >= even) & (before >= odd)
    is_even = ~is_before & (even >= odd)
    nothing = jnp.zeros_like(dy)
    to_odd = jnp.where(is_before | is_even, nothing, dy)
    to_odd += _moved(jnp.where(is_before, dy, nothing), axis, -1, 1, 0)
    both = jnp.stack([jnp.where(is_even, dy, nothing), to_odd], axis + 1)
    length = x.shape[axis]
    joined = both.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])
    return lax.slice_in_dim(joined, 0, length, axis=axis)


def _split(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """What is at even places along an axis, and at odd ones, with as many."""
    filled = _moved(x, axis, 0, x.shape[axis] % 2, -jnp.inf)
    pairs = filled.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
    even, odd = (lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1))
    return even, odd


def _moved(x: jax.Array, axis: int, before: int, after: int, fill: float) -> jax.Array:
    """With so many places more at the two ends of an axis, or fewer where that is negative."""
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (before, after, 0)
    return lax.pad(x, jnp.asarray(fill, x.dtype), edges)


_forward = platform_primitive("max_pool", _plain, _on_cpu)
_along = platform_primitive("max_pool_along", _plain_along, _plain_along)
_back = platform_primitive("max_pool_back", _plain_back, _back_on_cpu)

# A maximum is linear wherever it has a derivative: that of `_along` and of `_back` in x is 0.
ad.defjvp(_forward, lambda t, x: _along.bind(x, t))
ad.defjvp(_along, None, lambda t, x, _: _along.bind(x, t))
ad.defjvp(_back, None, lambda dy, x, _: _back.bind(x, dy))
ad.primitive_transposes[_along] = lambda dy, x, _: (None, _back.bind(x, dy))
ad.primitive_transposes[_back] = lambda t, x, _: (None, _along.bind(x, t))
