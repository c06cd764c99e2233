"""The convolution and its two gradients as XLA's CPU backend runs them fastest.

Depthwise convolutions are sums of shifted products; dense ones are matrix products, one for every
element of the kernel, or XLA's own, whichever `experiments/benchmarks/conv_ops.py` found faster.
"""

import jax
import jax.numpy as jnp
from jax import lax

from effnetv2_jax.ops import conv_plain
from effnetv2_jax.ops.conv_geometry import Geometry

_NARROW = 4
"""Up to so many input channels, XLA's dense convolution is slower than the copies of a product."""
_WIDE = 64
"""From so many output channels on, its gradients are slower than a product for each element."""


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """See `conv_plain.forward`."""
    if geometry.groups > 1:
        return _shifted_products(_wide(x), _wide(kernel), geometry).astype(x.dtype)
    if geometry.window == (1, 1) or x.shape[-1] <= _NARROW:
        patches = jnp.concatenate(_taps(x, geometry), -1)
        return jnp.einsum("bhwc,cd->bhwd", patches, kernel.reshape(-1, kernel.shape[-1]))
    return conv_plain.forward(x, kernel, geometry)


def to_input(y: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """See `conv_plain.to_input`."""
    # XLA would compute what y is made of anew for each of its uses.
    y = lax.optimization_barrier(y)
    if geometry.groups > 1:
        dx = _shifted_products(*_transposed(_wide(y), _wide(kernel), geometry))
        return _computed_once(dx).astype(y.dtype)
    if geometry.window != (1, 1) and y.shape[-1] < _WIDE:
        return conv_plain.to_input(y, kernel, geometry)
    weights = kernel.reshape(-1, *kernel.shape[2:])
    return _spread([jnp.einsum("bhwd,cd->bhwc", y, weight) for weight in weights], geometry)


def to_kernel(x: jax.Array, y: jax.Array, geometry: Geometry) -> jax.Array:
    """See `conv_plain.to_kernel`."""
    x, y = lax.optimization_barrier((x, y))
    if geometry.groups > 1:
        products = _summed_by_row(x, y, geometry)
    elif geometry.window != (1, 1) and y.shape[-1] < _WIDE:
        return conv_plain.to_kernel(x, y, geometry)
    else:
        # In two dimensions: of more, XLA transposes copies.
        flat = y.reshape(-1, y.shape[-1])
        products = [
            lax.dot_general(tap.reshape(-1, tap.shape[-1]), flat, (((0,), (0,)), ((), ())))
            for tap in _taps(x, geometry)
        ]
    shape = (*geometry.window, x.shape[-1] // geometry.groups, y.shape[-1])
    return jnp.stack(products).reshape(shape).astype(x.dtype)


def _shifted_products(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Depthwise convolution with a kernel `[kh, kw, 1, C]`, one element of it at a time."""
    weights = kernel.reshape(-1, kernel.shape[-1])
    total, *others = (tap * weight for tap, weight in zip(_taps(x, geometry), weights))
    for product in others:
        total += product
    return total


def _summed_by_row(x: jax.Array, y: jax.Array, geometry: Geometry) -> list[jax.Array]:
    """The gradient `[C]` of every element of a depthwise kernel.

    One row of one image at a time, whose sums, `[W', C]` each, stay in the processor's cache.
    """
    (batch, rows, columns, channels), (height, width) = y.shape, geometry.window
    padded = jnp.pad(x, ((0, 0), *geometry.pads, (0, 0)))
    window = (1, height, padded.shape[2], channels)
    end = geometry.stride * (columns - 1) + 1

    def add_row(sums: list[jax.Array], index: jax.Array) -> tuple[list[jax.Array], None]:
        image, row = index // rows, index % rows
        seen = lax.dynamic_slice(padded, (image, row * geometry.stride, 0, 0), window)[0]
        weight = _wide(lax.dynamic_slice(y, (image, row, 0, 0), (1, 1, columns, channels))[0, 0])
        products = [
            _wide(seen[i, j : j + end : geometry.stride]) * weight
            for i in range(height)
            for j in range(width)
        ]
        return [total + product for total, product in zip(sums, products)], None

    zeros = jnp.zeros((columns, channels), jnp.promote_types(y.dtype, jnp.float32))
    sums, _ = lax.scan(add_row, [zeros] * (height * width), jnp.arange(batch * rows))
    return [total.sum(0) for total in sums]


def _taps(x: jax.Array, geometry: Geometry) -> list[jax.Array]:
    """What each element of the kernel sees of `[B, H, W, C]`: kh * kw times `[B, H', W', C]`."""
    padded = jnp.pad(x, ((0, 0), *geometry.pads, (0, 0)))
    rows, columns = (geometry.stride * (size - 1) + 1 for size in geometry.outputs)
    return [
        padded[:, i : i + rows : geometry.stride, j : j + columns : geometry.stride]
        for i in range(geometry.window[0])
        for j in range(geometry.window[1])
    ]


def _spread(taps: list[jax.Array], geometry: Geometry) -> jax.Array:
    """The transpose of `_taps`: adds each `[B, H', W', C]` where it was seen."""
    (tap, *_), zero = taps, jnp.zeros((), taps[0].dtype)
    total = None
    for index, tap in enumerate(taps):
        config = [(0, 0, 0)]
        for axis, offset in enumerate(divmod(index, geometry.window[1])):
            before = offset - geometry.pads[axis][0]
            spread = geometry.stride * (geometry.outputs[axis] - 1) + 1
            config.append((before, geometry.sizes[axis] - before - spread, geometry.stride - 1))
        placed = lax.pad(tap, zero, [*config, (0, 0, 0)])
        total = placed if total is None else total + placed
    assert total is not None
    return total


def _transposed(
    y: jax.Array, kernel: jax.Array, geometry: Geometry
) -> tuple[jax.Array, jax.Array, Geometry]:
    """The depthwise convolution that is the transpose of one: its input, kernel and geometry."""
    between = geometry.stride - 1
    zero = jnp.zeros((), y.dtype)
    y = lax.pad(y, zero, [(0, 0, 0), (0, 0, between), (0, 0, between), (0, 0, 0)])
    height, width = y.shape[1:3]

    def pads(axis: int, out: int) -> tuple[int, int]:
        before = geometry.window[axis] - 1 - geometry.pads[axis][0]
        return before, geometry.sizes[axis] + geometry.window[axis] - 1 - out - before

    padding = (pads(0, height), pads(1, width))
    back = Geometry((height, width), geometry.window, 1, padding, geometry.groups)
    return y, kernel[::-1, ::-1], back


def _computed_once(x: jax.Array) -> jax.Array:
    # XLA computes anew, for each of its uses, what costs little to it; a sum of products is that,
    # and a division is not.
    return x / lax.optimization_barrier(jnp.ones((), x.dtype))


def _wide(x: jax.Array) -> jax.Array:
    # Sums of bfloat16 would lose digits over the taps, and nearly all of them over the pixels.
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
