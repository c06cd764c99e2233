"""BatchNorm's product and sum and the SiLU after it, in one pass over memory each way.

Its derivatives are computed from its inputs again. XLA's CPU backend would keep the sigmoid, which
is as large as the input, and would compute the whole anew for every use of its gradient.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.interpreters import ad
from jaxtyping import Float

from effnetv2_jax.ops.per_platform import (
    computed_once,
    only_plain_operations,
    platform_primitive,
)

_FEW_CHANNELS = 16
"""Up to so many, XLA's loop over them takes 2.5 times as long as one over a row of pixels."""


def scaled_silu(
    x: Float[Array, "*outer C"],
    scale: Float[Array, "..."],
    shift: Float[Array, "..."],
    *,
    dtype: Any,
) -> Float[Array, "*outer C"]:
    """`jax.nn.silu((x * scale + shift).astype(dtype))`, which has x's shape.

    Args:
      x: `[..., C]`.
      scale, shift: of shapes that broadcast to x's.
      dtype: of the result.
    """
    dtype = jnp.dtype(dtype)
    if only_plain_operations():
        return _plain(x, scale, shift, dtype=dtype)
    return _forward.bind(x, scale, shift, dtype=dtype)


def _scaled(x: jax.Array, scale: jax.Array, shift: jax.Array, *, dtype: Any) -> jax.Array:
    return (x * scale + shift).astype(dtype)


def _plain(x: jax.Array, scale: jax.Array, shift: jax.Array, *, dtype: Any) -> jax.Array:
    return jax.nn.silu(_scaled(x, scale, shift, dtype=dtype))


def _plain_times_slope(
    x: jax.Array, scale: jax.Array, shift: jax.Array, t: jax.Array, *, dtype: Any
) -> jax.Array:
    """`t`, of the result's shape, times SiLU's derivative there."""
    return jax.vjp(jax.nn.silu, _scaled(x, scale, shift, dtype=dtype))[1](t)[0]


def _on_cpu(x: jax.Array, scale: jax.Array, shift: jax.Array, *, dtype: Any) -> jax.Array:
    """`_plain`, and of few channels as if a row of pixels were one pixel of all of them."""
    *outer, width, channels = (1, *x.shape)
    per_channel = [jnp.atleast_2d(scale), jnp.atleast_2d(shift)]
    if channels > _FEW_CHANNELS or any(a.shape[-2:] != (1, channels) for a in per_channel):
        return computed_once(_plain, x, scale, shift, dtype=dtype)

    def tiled(a: jax.Array) -> jax.Array:
        of_row = jnp.broadcast_to(a, (*a.shape[:-2], width, channels))
        return of_row.reshape(*a.shape[:-2], 1, width * channels)

    rows = x.reshape(*outer, 1, width * channels)
    return computed_once(_plain, rows, *map(tiled, per_channel), dtype=dtype).reshape(x.shape)


_forward = platform_primitive("scaled_silu", _plain, _on_cpu)
_times_slope = platform_primitive(
    "scaled_silu_times_slope",
    _plain_times_slope,
    functools.partial(computed_once, _plain_times_slope),
)


def _forward_jvp(primals: Any, tangents: Any, *, dtype: Any) -> tuple[jax.Array, jax.Array]:
    tangents = tuple(ad.instantiate_zeros(tangent) for tangent in tangents)
    _, along = jax.jvp(functools.partial(_scaled, dtype=dtype), primals, tangents)
    out = _forward.bind(*primals, dtype=dtype)
    return out, _times_slope.bind(*primals, along, dtype=dtype)


def _along_input(index: int) -> Any:
    """The derivative of `_times_slope` along one of its inputs but `t`."""

    def along(tangent: jax.Array, *primals: jax.Array, dtype: Any) -> jax.Array:
        def plain(value: jax.Array) -> jax.Array:
            values = list(primals)
            values[index] = value
            return _plain_times_slope(*values, dtype=dtype)

        return jax.jvp(plain, (primals[index],), (tangent,))[1]

    return along


def _along_t(tangent: jax.Array, *primals: Any, dtype: Any) -> jax.Array:
    *inputs, _ = primals
    return _times_slope.bind(*inputs, tangent, dtype=dtype)


def _transpose(cotangent: jax.Array, *primals: Any, dtype: Any) -> tuple[Any, ...]:
    return None, None, None, _along_t(cotangent, *primals, dtype=dtype)


ad.primitive_jvps[_forward] = _forward_jvp
ad.defjvp(_times_slope, *map(_along_input, range(3)), _along_t)
ad.primitive_transposes[_times_slope] = _transpose
