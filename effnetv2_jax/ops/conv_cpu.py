"""The convolution and its two gradients as XLA's CPU backend runs them fastest.

Depthwise convolutions are sums of shifted products; dense ones are matrix products or XLA's own,
whichever `experiments/benchmarks/conv_ops.py` found faster.
"""

import functools
import math
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from effnetv2_jax.ops import conv_plain
from effnetv2_jax.ops.conv_geometry import Geometry
from effnetv2_jax.ops.per_platform import computed_once

_NARROW = 4
"""Up to so many input channels, XLA's dense convolution is faster for two outputs at a time."""
_WIDE = 64
"""From so many output channels on, its gradient of the input is slower than products."""
_PRODUCTS_AT_ONCE = 13
"""Of a depthwise kernel, that one loop adds: of the 25 of a 5x5 kernel it takes 3 times as long as
two loops."""
_IMAGES_AT_ONCE = 4
"""Whose rows are added to the gradient of a depthwise kernel together: of fewer, the calls of what
adds them take as long as the sums; of more, they fall out of the processor's cache."""


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """See `conv_plain.forward`."""
    kernel = kernel.astype(x.dtype)
    if geometry.groups > 1:
        return _sum_of_products(_seen, x, kernel, geometry)
    if geometry.window == (1, 1):
        return jnp.einsum("bhwc,cd->bhwd", x, kernel[0, 0])
    if x.shape[-1] <= _NARROW:
        return _pixels_joined(x, kernel, geometry)
    return conv_plain.forward(x, kernel, geometry)


def to_input(y: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """See `conv_plain.to_input`."""
    kernel = kernel.astype(y.dtype)
    if geometry.groups > 1:
        return _sum_of_products(_spread, y, kernel, geometry)
    if geometry.window != (1, 1) and y.shape[-1] < _WIDE:
        return conv_plain.to_input(y, kernel, geometry)
    weights = kernel.reshape(-1, *kernel.shape[2:])
    products = (jnp.einsum("bhwd,cd->bhwc", y, weight) for weight in weights)
    return _added(_spread(product, index, geometry) for index, product in enumerate(products))


def to_kernel(x: jax.Array, y: jax.Array, geometry: Geometry, dtype: Any) -> jax.Array:
    """See `conv_plain.to_kernel`."""
    if geometry.groups > 1:
        products = _summed_by_row(x, y, geometry)
        shape = (*geometry.window, 1, y.shape[-1])
        return jnp.stack(products).reshape(shape).astype(dtype)
    if geometry.window == (1, 1):
        # In two dimensions: of more, XLA transposes copies.
        flat_x, flat_y = (a.reshape(-1, a.shape[-1]) for a in (x, y))
        sums = (((0,), (0,)), ((), ()))
        return lax.dot_general(flat_x, flat_y, sums, preferred_element_type=dtype)[None, None]
    return conv_plain.to_kernel(x, y, geometry, dtype)


def _pixels_joined(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """A dense convolution of two neighbouring outputs of a row at a time.

    The pixels of a row that the two step over are one pixel of all their channels, and the kernel
    is filled up with zeros to whole ones.
    """
    (kh, kw, channels, features), stride = kernel.shape, geometry.stride
    joined = 2 * stride
    width = -(-(stride + kw) // joined)
    kernels = [
        jnp.pad(kernel, ((0, 0), (first, width * joined - kw - first), (0, 0), (0, 0)))
        for first in (0, stride)
    ]
    pairs = -(-geometry.outputs[1] // 2)
    pixels = pairs + width - 1
    rows, (left, _) = geometry.pads
    columns = (left, pixels * joined - left - x.shape[2])
    padding = [(0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), padding)
    y = lax.conv_general_dilated(
        x.reshape(*x.shape[:2], pixels, joined * channels),
        jnp.stack(kernels, 3).reshape(kh, width, joined * channels, 2 * features),
        window_strides=(stride, 1),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(*y.shape[:2], 2 * pairs, features)[:, :, : geometry.outputs[1]]


def _sum_of_products(
    place: Callable[[jax.Array, int, Geometry], jax.Array],
    x: jax.Array,
    kernel: jax.Array,
    geometry: Geometry,
) -> jax.Array:
    """The sum of the placed products of x and each element of a depthwise kernel `[kh, kw, 1, C]`.

    The products are what is placed, not x, of which XLA would make a copy with zeros around it.
    """
    elements = kernel.reshape(-1, kernel.shape[-1])

    def add(
        x: jax.Array, elements: jax.Array, *total: jax.Array, indices: range, dtype: Any
    ) -> jax.Array:
        products = [place(_wide(x) * _wide(elements[i]), i, geometry) for i in indices]
        return _added([*total, *products]).astype(dtype)

    count = len(elements)
    loops = -(-count // _PRODUCTS_AT_ONCE)
    total: list[jax.Array] = []
    for loop in range(loops):
        indices = range(count * loop // loops, count * (loop + 1) // loops)
        dtype = x.dtype if loop == loops - 1 else _wide(x).dtype
        total = [computed_once(add, x, elements, *total, indices=indices, dtype=dtype)]
    return total[0]


def _summed_by_row(x: jax.Array, y: jax.Array, geometry: Geometry) -> list[jax.Array]:
    """The gradient `[C]` of every element of a depthwise kernel.

    The same row of a few images at a time, whose sums, a row of `[C]` each, stay in the processor's
    cache.
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

    def products(image: jax.Array, row: jax.Array) -> list[jax.Array]:
        weight = _wide(lax.dynamic_slice(y, (image, row, 0, 0), (1, 1, columns, channels))[0, 0])
        found = []
        for seen_row in row * stride + jnp.arange(-top, height - top):
            # A row outside the image is read from inside, and weighs nothing.
            inside = ((seen_row >= 0) & (seen_row < image_rows)).astype(weight.dtype)
            start = (image, seen_row, 0, 0)
            seen = _wide(lax.dynamic_slice(x, start, (1, 1, *x.shape[2:]))[0, 0])
            found += [seen[r] * (weight[w] * inside) for r, w in zip(read, written)]
        return found

    at_once = math.gcd(batch, _IMAGES_AT_ONCE)

    def add_rows(sums: list[jax.Array], index: jax.Array) -> tuple[list[jax.Array], None]:
        first, row = index // rows * at_once, index % rows
        for image in range(at_once):
            sums = [total + product for total, product in zip(sums, products(first + image, row))]
        return sums, None

    dtype = jnp.promote_types(y.dtype, jnp.float32)
    zeros = [jnp.zeros((columns, channels), dtype)[w] for _ in range(height) for w in written]
    sums, _ = lax.scan(add_rows, zeros, jnp.arange(batch // at_once * rows))
    return [total.sum(0) for total in sums]


def _seen(x: jax.Array, index: int, geometry: Geometry) -> jax.Array:
    """What an element of the kernel sees of `[B, H, W, C]`: `[B, H', W', C]`."""
    stride = geometry.stride
    margins = [(before, after, 0) for before, after in _margins(index, geometry)]
    padded = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *margins, (0, 0, 0)])
    return padded[:, ::stride, ::stride]


def _spread(y: jax.Array, index: int, geometry: Geometry) -> jax.Array:
    """The transpose of `_seen`: `[B, H', W', C]` where the element saw it."""
    between = geometry.stride - 1
    margins = [(-before, -after, between) for before, after in _margins(index, geometry)]
    return lax.pad(y, jnp.zeros((), y.dtype), [(0, 0, 0), *margins, (0, 0, 0)])


def _margins(index: int, geometry: Geometry) -> Iterator[tuple[Any, Any]]:
    """Along each axis, how far what an element sees reaches beyond the image, before and after."""
    for axis, offset in enumerate(divmod(index, geometry.window[1])):
        before = geometry.pads[axis][0] - offset
        end = geometry.stride * (geometry.outputs[axis] - 1) + 1
        yield before, end - geometry.sizes[axis] - before


def _added(arrays: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(operator.add, arrays)


def _wide(x: jax.Array) -> jax.Array:
    # Sums of bfloat16 would lose digits over the taps, and nearly all of them over the pixels.
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
