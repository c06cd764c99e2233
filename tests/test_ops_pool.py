"""Pooling: what the CPU runs against XLA's own operations, and their derivatives."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effnetv2_jax.ops.per_platform import plain_operations
from effnetv2_jax.ops.pool import average_pool, max_pool

pytestmark = pytest.mark.usefixtures("quick_compilation")

Pool = Callable[[jax.Array], jax.Array]

SHAPES = [(2, 6, 8, 3), (1, 7, 5, 2), (2, 1, 4, 1)]


def pixels(shape: tuple[int, ...], *, equal: bool = False) -> jax.Array:
    """`equal`: many are, as after a ReLU."""
    drawn = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return jnp.asarray(np.maximum(drawn.round(), 0) if equal else drawn)


def plain(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def along_and_back(pool: Pool, x: jax.Array) -> list[jax.Array]:
    """Maxima, and their derivatives forward and in reverse."""
    y, along = jax.jvp(pool, (x,), (x + 1,))
    dy = 1 + jnp.arange(y.size, dtype=y.dtype).reshape(y.shape)
    return [y, along, *jax.vjp(pool, x)[1](dy)]


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_maxima_and_where_their_gradients_go(shape: tuple[int, ...], equal: bool) -> None:
    x = pixels(shape, equal=equal)
    found, expected = jax.jit(lambda x: [along_and_back(pool, x) for pool in (max_pool, plain)])(x)
    for each, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(each, wanted)


def test_maxima_without_primitives() -> None:
    x = pixels((2, 7, 6, 3)) - 10
    with plain_operations():
        np.testing.assert_array_equal(max_pool(x), plain(x))


def test_maxima_of_bfloat16_and_of_batches_of_batches() -> None:
    x = pixels((3, 2, 6, 5, 2)).astype(jnp.bfloat16)
    found, expected = jax.jit(lambda x: [jax.vmap(pool)(x) for pool in (max_pool, plain)])(x)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, expected)


def test_second_derivatives_are_those_of_what_follows() -> None:
    def second(pool: Pool, x: jax.Array) -> jax.Array:
        first = jax.grad(lambda x: (pool(x) ** 3).sum())
        return jax.grad(lambda x: jnp.vdot(first(x), x))(x)

    x = pixels((1, 6, 6, 2))
    found, expected = jax.jit(lambda x: [second(pool, x) for pool in (max_pool, plain)])(x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_means_at_far_edges_are_of_pixels_in_the_image(shape: tuple[int, ...]) -> None:
    x = np.asarray(pixels(shape))
    height, width = shape[1:3]
    expected = [
        [x[:, i : i + 2, j : j + 2].mean((1, 2)) for j in range(0, width, 2)]
        for i in range(0, height, 2)
    ]
    np.testing.assert_allclose(
        average_pool(jnp.asarray(x)), np.moveaxis(np.array(expected), 2, 0), rtol=1e-5, atol=1e-6
    )


def test_an_even_image_is_halved_as_flax_halves_it() -> None:
    x = pixels((2, 8, 6, 3))
    np.testing.assert_allclose(average_pool(x), nn.avg_pool(x, (2, 2), (2, 2)), rtol=1e-6)
