"""Operations on grey levels, equal to Pillow's `ImageOps` and `ImageEnhance`.

Images are `uint8 [H, W, 3]`, RGB. A tone operation is a table of 256 grey levels per channel, and
an enhancing one is a blend with a degenerate image; so a single `look_up` and a single `blend`
serve all of them, whichever operation an image of a batch has drawn.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Int32, Integer, Real, UInt8

from effnetv2_jax.augment import products

LEVELS = 256


def histogram(image: UInt8[Array, "H W 3"]) -> Int32[Array, "256 3"]:
    """Counts grey levels.

    Args:
      image: uint8 [H, W, 3].

    Returns:
      int32 [256, 3]: how many pixels have each grey level, per channel.
    """
    return jax.lax.platform_dependent(image, tpu=products.histogram, default=_histogram)


def _histogram(image: Array) -> Array:
    channels = image.shape[-1]
    slots = image.astype(jnp.int32) * channels + jnp.arange(channels, dtype=jnp.int32)
    counts = jnp.zeros(LEVELS * channels, jnp.int32)
    counts = counts.at[slots.reshape(-1)].add(1, mode="promise_in_bounds")
    return counts.reshape(LEVELS, channels)


def look_up(image: UInt8[Array, "H W 3"], table: Real[Array, "256 3"]) -> UInt8[Array, "H W 3"]:
    """Replaces every grey level by the table's entry for it.

    Args:
      image: uint8 [H, W, 3].
      table: [256, 3], whole numbers in [0, 255].

    Returns:
      uint8 [H, W, 3].
    """
    return jax.lax.platform_dependent(
        image, table.astype(jnp.uint8), tpu=products.look_up, default=_look_up
    )


def _look_up(image: Array, table: Array) -> Array:
    channels = image.shape[-1]
    slots = image.astype(jnp.int32) * channels + jnp.arange(channels, dtype=jnp.int32)
    return table.reshape(-1).at[slots].get(mode="promise_in_bounds")


def identity_table() -> Int32[Array, "256 3"]:
    """int32 [256, 3]: every grey level stays."""
    return jnp.broadcast_to(jnp.arange(LEVELS, dtype=jnp.int32)[:, None], (LEVELS, 3))


def autocontrast_table(counts: Int32[Array, "256 3"]) -> Int32[Array, "256 3"]:
    """Stretches each channel to the whole range, as `ImageOps.autocontrast` does.

    A channel of a single grey level stays as it is.

    Args:
      counts: int32 [256, 3], the image's `histogram`.

    Returns:
      int32 [256, 3].
    """
    levels = identity_table()
    low = jnp.min(jnp.where(counts > 0, levels, LEVELS), axis=0)
    high = jnp.max(jnp.where(counts > 0, levels, -1), axis=0)
    span = high - low
    stretched = jnp.clip((levels - low) * 255 // jnp.maximum(span, 1), 0, 255)
    return jnp.where(span > 0, stretched, levels)


def equalize_table(counts: Int32[Array, "256 3"]) -> Int32[Array, "256 3"]:
    """Makes each channel's grey levels equally frequent, as `ImageOps.equalize` does.

    A channel stays as it is when it has a single grey level, or when fewer than 255 pixels lie
    below its highest one.

    Args:
      counts: int32 [256, 3], the image's `histogram`.

    Returns:
      int32 [256, 3].
    """
    levels = identity_table()
    highest = jnp.max(jnp.where(counts > 0, levels, 0), axis=0)
    cumulated = jnp.cumsum(counts, axis=0, dtype=jnp.int32)
    below = cumulated - counts
    below_highest = jnp.sum(jnp.where(levels == highest, below, 0), axis=0, dtype=jnp.int32)
    step = below_highest // 255
    equalized = (below + step // 2) // jnp.maximum(step, 1)
    return jnp.where(step > 0, jnp.minimum(equalized, 255), levels)


def invert_table() -> Int32[Array, "256 3"]:
    """int32 [256, 3]: 255 minus the grey level."""
    return 255 - identity_table()


def posterize_table(bits: ArrayLike) -> Int32[Array, "256 3"]:
    """Keeps the highest bits of a grey level.

    Args:
      bits: integer; 1 or fewer keep the highest, 8 or more keep everything.

    Returns:
      int32 [256, 3].
    """
    dropped = 8 - jnp.clip(bits, 1, 8)
    return (identity_table() >> dropped) << dropped


def solarize_table(threshold: ArrayLike) -> Int32[Array, "256 3"]:
    """Inverts the grey levels from a threshold upwards; from 256 on, nothing is inverted.

    Returns:
      int32 [256, 3].
    """
    levels = identity_table()
    return jnp.where(levels < threshold, levels, 255 - levels)


def solarize_add_table(addition: ArrayLike) -> Int32[Array, "256 3"]:
    """Adds to the grey levels below 128, at most up to 255.

    Returns:
      int32 [256, 3].
    """
    levels = identity_table()
    return jnp.where(levels < 128, jnp.clip(levels + addition, 0, 255), levels)


def grey(image: UInt8[Array, "H W 3"]) -> UInt8[Array, "H W 1"]:
    """Luma in ITU-R 601-2's weights and Pillow's fixed-point arithmetic (`convert("L")`).

    Args:
      image: uint8 [H, W, 3].

    Returns:
      uint8 [H, W, 1].
    """
    red, green, blue = (image[..., c : c + 1].astype(jnp.int32) for c in range(3))
    luma = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return luma.astype(jnp.uint8)


def mean_grey(image: UInt8[Array, "H W 3"]) -> Int32[Array, ""]:
    """int32 scalar: the mean of `grey`, rounded, with which `ImageEnhance.Contrast` blends."""
    pixels = image.shape[0] * image.shape[1]
    total = jnp.sum(grey(image), dtype=jnp.int32)
    return (2 * total + pixels) // (2 * pixels)


def faulty_mean_grey(image: UInt8[Array, "H W 3"]) -> Int32[Array, ""]:
    """int32 scalar: what the released TensorFlow code takes for the mean grey value.

    It sums the histogram's counts, not the grey levels, and divides by 256: that is the number of
    pixels / 256, at most 255, whatever is in the picture.
    """
    return jnp.int32(min(image.shape[0] * image.shape[1] // LEVELS, 255))


def smooth(image: UInt8[Array, "H W 3"]) -> UInt8[Array, "H W 3"]:
    """`ImageFilter.SMOOTH`: the kernel (1, 1, 1; 1, 5, 1; 1, 1, 1) / 13, the border as it was.

    Args:
      image: uint8 [H, W, 3].

    Returns:
      uint8 [H, W, 3].
    """
    height, width, _ = image.shape
    # 16 bits hold 26 times the largest grey level, and halve what a TPU moves.
    pixels = image.astype(jnp.uint16)
    zero, add = jnp.uint16(0), jax.lax.add
    columns = jax.lax.reduce_window(pixels, zero, add, (3, 1, 1), (1, 1, 1), "VALID")
    squares = jax.lax.reduce_window(columns, zero, add, (1, 3, 1), (1, 1, 1), "VALID")
    total = squares + 4 * pixels[1:-1, 1:-1]
    inner = ((2 * total + 13) // 26).astype(jnp.uint8)
    row = jnp.arange(height)[:, None, None]
    column = jnp.arange(width)[None, :, None]
    border = (row == 0) | (row == height - 1) | (column == 0) | (column == width - 1)
    return jnp.where(border, image, jnp.pad(inner, ((1, 1), (1, 1), (0, 0))))


def blend(
    degenerate: Integer[Array, "..."], image: UInt8[Array, "H W 3"], factor: ArrayLike
) -> UInt8[Array, "H W 3"]:
    """`Image.blend`, by which `ImageEnhance` strengthens or weakens a property of an image.

    Args:
      degenerate: integers that broadcast to the image, in [0, 255]: the result for factor 0.
      image: uint8 [H, W, 3]: the result, bit for bit, for factor 1.
      factor: above 1 extrapolates; the result is clipped to [0, 255].

    Returns:
      uint8 [H, W, 3].
    """
    start = degenerate.astype(jnp.float32)
    mixed = start + jnp.float32(factor) * (image.astype(jnp.float32) - start)
    return jnp.clip(mixed, 0, 255).astype(jnp.uint8)
