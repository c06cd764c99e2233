"""Random erasing (arXiv 1708.04896): a rectangle of noise, as timm and DeiT have it."""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from effnetv2_jax.augment.places import Part, keys_at

AREA = (0.02, 1 / 3)
"""Smallest and largest rectangle, as a share of the image's area."""
ASPECT = (0.3, 1 / 0.3)
"""Smallest and largest height / width."""
ATTEMPTS = 10
"""At a rectangle that is smaller than the image both ways; after so many it stays whole."""


def erase(
    key: PRNGKeyArray,
    images: Float[Array, "B H W C"],
    *,
    probability: float,
    part: Part | None = None,
) -> Float[Array, "B H W C"]:
    """Puts a rectangle of noise, N(0, 1) in each channel of each pixel, into some of the images.

    Its area is uniform, its aspect log-uniform, and its place uniform over where it fits.

    Args:
      key: PRNG key of the batch; an image's draws depend on it and on the image's place only.
      images: normalised, float [B, H, W, C].
      probability: of an image to get one.
      part: which of a batch the images are; None is all of it.

    Returns:
      [B, H, W, C], of the images' dtype.
    """
    _, height, width, channels = images.shape

    def one(key: Array, image: Array) -> Array:
        chance_key, area_key, aspect_key, place_key, noise_key = jax.random.split(key, 5)
        area = jax.random.uniform(area_key, (ATTEMPTS,), minval=AREA[0], maxval=AREA[1])
        logarithms = [math.log(limit) for limit in ASPECT]
        aspect = jnp.exp(
            jax.random.uniform(aspect_key, (ATTEMPTS,), minval=logarithms[0], maxval=logarithms[1])
        )
        rows = jnp.round(jnp.sqrt(area * height * width * aspect))
        columns = jnp.round(jnp.sqrt(area * height * width / aspect))
        fits = (rows < height) & (columns < width)
        chosen = jnp.argmax(fits)
        rows, columns = rows[chosen], columns[chosen]
        place = jax.random.uniform(place_key, (2,))
        top = jnp.floor(place[0] * (height - rows + 1))
        left = jnp.floor(place[1] * (width - columns + 1))
        y, x = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
        inside = (y >= top) & (y < top + rows) & (x >= left) & (x < left + columns)
        erased = (jax.random.uniform(chance_key) < probability) & fits.any()
        noise = jax.random.normal(noise_key, (height * width * channels,), jnp.float32)
        noise = noise.reshape(image.shape).astype(image.dtype)
        return jnp.where((inside & erased)[:, :, None], noise, image)

    return jax.vmap(one)(keys_at(key, images.shape[0], part), images)
