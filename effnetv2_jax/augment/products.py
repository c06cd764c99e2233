"""Histogram, look-up and affine gather as matrix products with one-hot factors, for TPUs.

A TPU gathers and scatters one element after another, but multiplies matrices fast, and XLA makes
the one-hot factors on the fly: none of them reaches memory. The results are equal, bit for bit, to
those of the gathers and scatters that other platforms use. Grey levels up to 255 are exact in
bfloat16, and each sum has a single term that is not 0 (or, in the histogram, terms 0 and 1 added
in float32).
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int32, Real, UInt8

_DTYPE = jnp.bfloat16


def histogram(image: UInt8[Array, "H W 3"]) -> Int32[Array, "256 3"]:
    """`color.histogram`: a level's two hexadecimal digits, counted by one product of each pair.

    Args:
      image: uint8 [H, W, 3].

    Returns:
      int32 [256, 3]; exact up to 2^24 pixels.
    """
    counts = []
    for plane in jnp.moveaxis(image, -1, 0):
        high, low = _one_hot(plane >> 4, 16, axis=0), _one_hot(plane & 15, 16, axis=0)
        pairs = jnp.einsum("ahw,bhw->ab", high, low, preferred_element_type=jnp.float32)
        counts.append(pairs.reshape(256))
    return jnp.stack(counts, axis=-1).astype(jnp.int32)


def look_up(image: UInt8[Array, "H W 3"], table: Real[Array, "256 3"]) -> UInt8[Array, "H W 3"]:
    """`color.look_up`: the low digit chooses by a product, the high one by a masked sum.

    Args:
      image: uint8 [H, W, 3].
      table: [256, 3], whole numbers in [0, 255].

    Returns:
      uint8 [H, W, 3].
    """
    planes = []
    for plane, entries in zip(jnp.moveaxis(image, -1, 0), jnp.moveaxis(table, -1, 0)):
        low = _one_hot(plane & 15, 16, axis=0)
        rows = entries.reshape(16, 16).astype(_DTYPE)
        candidates = jnp.einsum("ab,bhw->ahw", rows, low)
        chosen = plane[None] >> 4 == jnp.arange(16, dtype=jnp.uint8)[:, None, None]
        planes.append(_as_bytes(jnp.sum(jnp.where(chosen, candidates, 0), axis=0)))
    return jnp.stack(planes, axis=-1)


def affine_gather(
    image: UInt8[Array, "H W 3"], start: Int32[Array, "2"], step: Int32[Array, "2 2"]
) -> UInt8[Array, "H W 3"]:
    """Takes output pixel (row, column) from where an affine map says, in two passes.

    The first pass moves pixels along rows, the second along columns. Within a column of the
    output, up to two neighbours come from the same source row, out of the same source column or
    two adjacent ones; so the first pass fetches both, between which the end chooses.

    Args:
      image: uint8 [H, W, 3], up to 2,048 pixels high and wide.
      start: int32 [2], source column and row of output pixel (0, 0) in units of 1/65,536.
      step: int32 [2, 2], what a column and a row of the output add to it. The map may rotate,
        shear or translate, but not shrink.

    Returns:
      uint8 [H, W, 3]; pixels from outside the image are arbitrary.
    """
    height, width, _ = image.shape
    side = max(height, width)
    planes = jnp.moveaxis(image, -1, 0)
    planes = jnp.pad(planes, ((0, 0), (0, side - height), (0, side - width)))
    # Along columns of the output, source rows must change faster than source columns.
    swap = jnp.abs(step[1, 1]) < jnp.abs(step[0, 1])
    planes = jnp.where(swap, planes.swapaxes(1, 2), planes)
    start, step = jnp.where(swap, start[::-1], start), jnp.where(swap, step[::-1], step)
    column = jnp.arange(width, dtype=jnp.int32)[None, :]

    def source(row: Array) -> tuple[Array, Array]:
        x = (start[0] + step[0, 0] * column + step[0, 1] * row) >> 16
        y = (start[1] + step[1, 0] * column + step[1, 1] * row) >> 16
        return x, y

    def first_of_two(source_row: Array) -> Array:
        """The lower source column of the output pixels in a column that share a source row."""
        middle = (source_row << 16) + (1 << 15) - start[1] - step[1, 0] * column
        # Rounding does no harm: what shares the row lies within 0.71 of the quotient.
        row = jnp.floor(middle / step[1, 1]).astype(jnp.int32)
        shared = [jnp.where(y == source_row, x, side) for x, y in (source(row), source(row + 1))]
        return jnp.clip(jnp.minimum(*shared), 0, side - 1)

    # What passes through memory between the products is of the smallest type that holds it, and
    # in an order of dimensions that lets XLA make the one-hot factors within the products.
    lower = first_of_two(jnp.arange(side, dtype=jnp.int32)[:, None])
    to_the_right = jnp.pad(planes[:, :, 1:], ((0, 0), (0, 0), (0, 1)))
    both = jnp.concatenate([planes, to_the_right])
    fetched = _one_hot(lower.astype(jnp.int16), side, axis=1)
    along_rows = _grey_levels("crk,rkx->crx", both, fetched).swapaxes(1, 2)
    x, y = source(jnp.arange(height, dtype=jnp.int32)[:, None])
    fetched = _one_hot(y.T.astype(jnp.int16), side, axis=1)
    first, second = jnp.split(_grey_levels("cxr,xry->cxy", along_rows, fetched), 2)
    chosen = jnp.where((x == first_of_two(y)).T, first, second)
    return chosen.transpose(2, 1, 0)


def _grey_levels(subscripts: str, levels: Array, one_hot: Array) -> Array:
    """uint8: the grey levels that a one-hot factor chooses, or 0 where it chooses none."""
    return _as_bytes(jnp.einsum(subscripts, levels.astype(_DTYPE), one_hot))


def _as_bytes(levels: Array) -> Array:
    # Without a barrier, XLA writes the wider type and converts it wherever it is read.
    return jax.lax.optimization_barrier(levels.astype(jnp.uint8))


def _one_hot(indices: Array, size: int, axis: int) -> Array:
    levels = jnp.arange(size, dtype=indices.dtype)
    shape = [1] * (indices.ndim + 1)
    shape[axis] = size
    return (jnp.expand_dims(indices, axis) == levels.reshape(shape)).astype(_DTYPE)
