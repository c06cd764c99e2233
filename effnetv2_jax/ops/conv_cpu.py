"""The convolution and its two gradients as XLA's CPU backend runs them fastest.

Depthwise convolutions are sums of shifted products; dense ones are matrix products or XLA's own,
whichever `experiments/benchmarks/conv_ops.py` found faster.
"""

import jax
import jax.numpy as jnp
from jax import lax

from effnetv2_jax.ops import conv_plain
from effnetv2_jax.ops.conv_geometry import Geometry
from effnetv2_jax.ops.per_platform import computed_once

_NARROW = 4
"""Up to so many input channels, XLA's dense convolution is slower than the copies of a product."""
_WIDE = 64
"""From so many output channels on, its gradient of the input is slower than products."""


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """See `conv_plain.forward`."""
    if geometry.groups > 1:
        return computed_once(_depthwise, x, kernel, geometry=geometry)
    if geometry.window == (1, 1) or x.shape[-1] <= _NARROW:
        patches = jnp.concatenate(_taps(x, geometry), -1)
        return jnp.einsum("bhwc,cd->bhwd", patches, kernel.reshape(-1, kernel.shape[-1]))
    return conv_plain.forward(x, kernel, geometry)


def to_input(y: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """See `conv_plain.to_input`."""
    if geometry.groups > 1:
        return computed_once(_depthwise_to_input, y, kernel, geometry=geometry)
    if geometry.window != (1, 1) and y.shape[-1] < _WIDE:
        return conv_plain.to_input(y, kernel, geometry)
    weights = kernel.reshape(-1, *kernel.shape[2:])
    return _spread([jnp.einsum("bhwd,cd->bhwc", y, weight) for weight in weights], geometry)


def to_kernel(x: jax.Array, y: jax.Array, geometry: Geometry) -> jax.Array:
    """See `conv_plain.to_kernel`."""
    if geometry.groups > 1:
        products = _summed_by_row(x, y, geometry)
        shape = (*geometry.window, 1, y.shape[-1])
        return jnp.stack(products).reshape(shape).astype(x.dtype)
    if geometry.window == (1, 1):
        # In two dimensions: of more, XLA transposes copies.
        flat_x, flat_y = (a.reshape(-1, a.shape[-1]) for a in (x, y))
        return lax.dot_general(flat_x, flat_y, (((0,), (0,)), ((), ())))[None, None]
    return conv_plain.to_kernel(x, y, geometry)


def _depthwise(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Depthwise convolution with a kernel `[kh, kw, 1, C]`, one element of it at a time."""
    weights = _wide(kernel).reshape(-1, kernel.shape[-1])
    total, *others = (tap * weight for tap, weight in zip(_taps(_wide(x), geometry), weights))
    for product in others:
        total += product
    return total.astype(x.dtype)


def _depthwise_to_input(y: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """The transpose of `_depthwise` in its input, as another depthwise convolution."""
    between = geometry.stride - 1
    zero = jnp.zeros((), y.dtype)
    y = lax.pad(y, zero, [(0, 0, 0), (0, 0, between), (0, 0, between), (0, 0, 0)])
    height, width = y.shape[1:3]

    def pads(axis: int, out: int) -> tuple[int, int]:
        before = geometry.window[axis] - 1 - geometry.pads[axis][0]
        return before, geometry.sizes[axis] + geometry.window[axis] - 1 - out - before

    padding = (pads(0, height), pads(1, width))
    back = Geometry((height, width), geometry.window, 1, padding, geometry.groups)
    return _depthwise(y, kernel[::-1, ::-1], back)


def _summed_by_row(x: jax.Array, y: jax.Array, geometry: Geometry) -> list[jax.Array]:
    """The gradient `[C]` of every element of a depthwise kernel.

    One row of one image at a time, whose sums, a row of `[C]` each, stay in the processor's cache.
    """
    (batch, rows, columns, channels), (height, width) = y.shape, geometry.window
    stride, ((top, _), (left, _)) = geometry.stride, geometry.pads
    image_rows, image_columns = geometry.sizes
    # Of the row's columns, those where the kernel's element sees the image, and what it sees there.
    written, read = [], []
    for offset in range(-left, width - left):
        first = max(0, -(offset // stride))
        end = min(columns, (image_columns - 1 - offset) // stride + 1)
        written.append(slice(first, end))
        read.append(slice(first * stride + offset, (end - 1) * stride + offset + 1, stride))

    def add_row(sums: list[jax.Array], index: jax.Array) -> tuple[list[jax.Array], None]:
        image, row = index // rows, index % rows
        weight = _wide(lax.dynamic_slice(y, (image, row, 0, 0), (1, 1, columns, channels))[0, 0])
        products = []
        for seen_row in row * stride + jnp.arange(-top, height - top):
            # A row outside the image is read from inside, and weighs nothing.
            inside = ((seen_row >= 0) & (seen_row < image_rows)).astype(weight.dtype)
            start = (image, seen_row, 0, 0)
            seen = _wide(lax.dynamic_slice(x, start, (1, 1, *x.shape[2:]))[0, 0])
            products += [seen[r] * (weight[w] * inside) for r, w in zip(read, written)]
        return [total + product for total, product in zip(sums, products)], None

    dtype = jnp.promote_types(y.dtype, jnp.float32)
    zeros = [jnp.zeros((columns, channels), dtype)[w] for _ in range(height) for w in written]
    sums, _ = lax.scan(add_row, zeros, jnp.arange(batch * rows))
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


def _wide(x: jax.Array) -> jax.Array:
    # Sums of bfloat16 would lose digits over the taps, and nearly all of them over the pixels.
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
