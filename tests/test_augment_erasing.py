"""Random erasing: whose, where, how large, and with what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from effnetv2_jax.augment import erase

HEIGHT, WIDTH = 24, 40
pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)

jitted = jax.jit(erase, static_argnames="probability")


def blank(count: int) -> jax.Array:
    """Images that no noise is equal to."""
    return jnp.full((count, HEIGHT, WIDTH, 3), 100.0)


def hidden(probability: float, count: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Images, and bool `[B, H, W]` of what is hidden."""
    images = np.asarray(jitted(KEY, blank(count), probability=probability))
    return images, (images != 100).all(-1)


def test_rectangles_of_the_law_hide_that_share_of_the_images() -> None:
    images, masks = hidden(0.25)
    erased = masks.any((1, 2))
    assert erased.mean() == pytest.approx(0.25, abs=0.06)
    np.testing.assert_array_equal(images[~masks], 100)
    noise = images[masks]
    assert (noise.mean(), noise.std()) == (pytest.approx(0, abs=0.02), pytest.approx(1, abs=0.02))

    _, masks = hidden(1.0)
    rows, columns = masks.any(2).sum(1), masks.any(1).sum(1)
    np.testing.assert_array_equal(masks.sum((1, 2)), rows * columns)
    drawn = rows > 0
    assert drawn.mean() > 0.99
    rows, columns = rows[drawn], columns[drawn]
    assert rows.max() < HEIGHT
    assert columns.max() < WIDTH
    # Sides are rounded.
    areas = rows * columns / (HEIGHT * WIDTH)
    assert areas.min() > 0.012
    assert areas.max() < 0.36
    assert np.median(areas) == pytest.approx((0.02 + 1 / 3) / 2, abs=0.03)
    assert np.median(rows / columns) == pytest.approx(1, abs=0.15)
    # They reach every edge.
    union = np.logical_or.reduce(masks)
    assert union[0].any()
    assert union[-1].any()
    assert union[:, 0].any()
    assert union[:, -1].any()


def test_without_a_chance_images_return_bit_for_bit() -> None:
    images = blank(8) + jnp.arange(8.0)[:, None, None, None]
    np.testing.assert_array_equal(jitted(KEY, images, probability=0.0), images)


def test_an_image_depends_on_its_own_place_only(mesh: Mesh) -> None:
    images = blank(16).astype(jnp.bfloat16)
    expected = jitted(KEY, images, probability=0.5)
    assert expected.dtype == jnp.bfloat16
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    found = jitted(KEY, jax.device_put(images, sharding), probability=0.5)
    np.testing.assert_array_equal(found, expected)
