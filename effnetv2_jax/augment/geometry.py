"""Operations that move or hide pixels. Images are `uint8 [H, W, C]`, with C = 3 in a policy."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float32, Int32, Integer, PRNGKeyArray, UInt8

from effnetv2_jax.augment import products

FILL = 128

_FRACTION_BITS = 16
_FARTHEST = 8192.0


def affine_matrix(
    height: int,
    width: int,
    *,
    degrees: ArrayLike = 0.0,
    shear_x: ArrayLike = 0.0,
    shear_y: ArrayLike = 0.0,
    translate_x: ArrayLike = 0.0,
    translate_y: ArrayLike = 0.0,
) -> Float32[Array, "2 3"]:
    """The matrix of one of five motions: the others stay 0, for they are added, not composed.

    Args:
      height, width: of the image, whose centre is the rotation's.
      degrees: counter-clockwise rotation, as in `Image.rotate`.
      shear_x, shear_y: source pixels per row (column) of distance from the top-left corner.
      translate_x, translate_y: source pixels to the right (below) that a pixel is taken from.

    Returns:
      float32 [2, 3]: maps output to source coordinates (x, y, 1), as in `Image.transform`.
    """
    angle = jnp.float32(degrees) * (jnp.pi / 180)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, y = width / 2, height / 2
    return jnp.array(
        [
            [cos, shear_x - sin, x - x * cos + y * sin + translate_x],
            [shear_y + sin, cos, y - x * sin - y * cos + translate_y],
        ],
        jnp.float32,
    )


def affine(image: UInt8[Array, "H W 3"], matrix: Float32[Array, "2 3"]) -> UInt8[Array, "H W 3"]:
    """`Image.transform` with `AFFINE` and `NEAREST`.

    Pillow's 16.16 fixed-point arithmetic is repeated, so that ties fall on the same side.

    Args:
      image: uint8 [H, W, 3], up to 2,048 pixels high and wide.
      matrix: float32 [2, 3], see `affine_matrix`; the identity returns the image bit for bit.

    Returns:
      uint8 [H, W, 3]; pixels from outside the image are 128.
    """
    centred = matrix[:, 2] + 0.5 * matrix[:, 0] + 0.5 * matrix[:, 1]
    start = _fixed_point(jnp.clip(centred, -_FARTHEST, _FARTHEST))
    step = _fixed_point(matrix[:, :2])
    return jax.lax.platform_dependent(
        image, start, step, tpu=_affine_by_products, default=_affine_by_gather
    )


def _affine_by_gather(image: Array, start: Array, step: Array) -> Array:
    height, width, channels = image.shape
    x, y, inside = _sources(height, width, start, step)
    # A pixel of fill behind the last one spares a selection, which XLA would fuse into, and
    # repeat for, every use of the moved image.
    pixels = jnp.pad(image.reshape(-1, channels), ((0, 1), (0, 0)), constant_values=FILL)
    source = jnp.where(inside, y * width + x, height * width)
    return pixels.at[source].get(mode="promise_in_bounds")


def _affine_by_products(image: Array, start: Array, step: Array) -> Array:
    height, width, _ = image.shape
    _, _, inside = _sources(height, width, start, step)
    moved = products.affine_gather(image, start, step)
    return jnp.where(inside[:, :, None], moved, jnp.uint8(FILL))


def _sources(height: int, width: int, start: Array, step: Array) -> tuple[Array, Array, Array]:
    """int32 [H, W], twice, and bool [H, W]: source column and row, and whether they exist."""
    column = jnp.arange(width, dtype=jnp.int32)[None, :]
    row = jnp.arange(height, dtype=jnp.int32)[:, None]
    x = (start[0] + step[0, 0] * column + step[0, 1] * row) >> _FRACTION_BITS
    y = (start[1] + step[1, 0] * column + step[1, 1] * row) >> _FRACTION_BITS
    return x, y, (x >= 0) & (x < width) & (y >= 0) & (y < height)


def _fixed_point(value: Array) -> Array:
    return jnp.floor(value * (1 << _FRACTION_BITS) + 0.5).astype(jnp.int32)


def random_flip(key: PRNGKeyArray, image: UInt8[Array, "H W C"]) -> UInt8[Array, "H W C"]:
    """Mirrors the image left to right with probability 1/2."""
    return jnp.where(_toss(key), image[:, ::-1], image)


def random_sign(key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> Float32[Array, "..."]:
    """float32 of a shape: 1 or -1, each with probability 1/2."""
    return jnp.where(_toss(key, shape), jnp.float32(1), jnp.float32(-1))


def _toss(key: Array, shape: tuple[int, ...] = ()) -> Array:
    # In float64 mode a float64 probability, the default, would draw from other bits.
    return jax.random.bernoulli(key, jnp.float32(0.5), shape)


def square_mask(
    height: int, width: int, centre: Integer[Array, "2"], half_side: ArrayLike
) -> Bool[Array, "{height} {width} 1"]:
    """A square, cut off at the image's border.

    Args:
      height, width: of the image.
      centre: integers [2], row and column.
      half_side: integer; rows centre - half_side to centre + half_side - 1, columns likewise.

    Returns:
      bool [H, W, 1], true within the square.
    """
    row = jnp.arange(height, dtype=jnp.int32)[:, None, None]
    column = jnp.arange(width, dtype=jnp.int32)[None, :, None]
    rows = (row >= centre[0] - half_side) & (row < centre[0] + half_side)
    columns = (column >= centre[1] - half_side) & (column < centre[1] + half_side)
    return rows & columns


def random_pixel(key: PRNGKeyArray, height: int, width: int) -> Int32[Array, "2"]:
    """int32 [2]: row and column of a pixel, uniform over the image."""
    limits = jnp.array([height, width], jnp.int32)
    return jax.random.randint(key, (2,), 0, limits, jnp.int32)


def cutout(key: PRNGKeyArray, image: UInt8[Array, "H W C"], *, side: int) -> UInt8[Array, "H W C"]:
    """Hides a square under uniform noise, as in fine-tuning (there, side is half the image's).

    The noise has all grey levels, where the released code's has only the brighter half of them: it
    draws from 0 to 1 on a scale of -1 to 1.

    Args:
      key: PRNG key.
      image: uint8 [H, W, C].
      side: of the square, in pixels; its centre is uniform over the image, and what lies beyond
        the border is lost.

    Returns:
      uint8 [H, W, C].
    """
    height, width, _ = image.shape
    centre_key, noise_key = jax.random.split(key)
    mask = square_mask(height, width, random_pixel(centre_key, height, width), side // 2)
    return jnp.where(mask, jax.random.bits(noise_key, image.shape, jnp.uint8), image)
