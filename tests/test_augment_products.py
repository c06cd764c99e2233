"""The TPU's matrix products against the gathers and scatters of other platforms, bit for bit."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pictures import photographs

from effnetv2_jax.augment import augment_batch, color, geometry, products

SIZES = ((32, 32), (35, 52), (50, 33))
DEGREES = (0, 3, 15, 30, 44.9, 45, 60, 75, 90, 135, 180, 250)
MOTIONS = (
    *({"degrees": sign * degrees} for degrees in DEGREES for sign in (1.0, -1.0)),
    *({"shear_x": shear} for shear in (0.1, -0.3, 0.9, -1.7)),
    *({"shear_y": shear} for shear in (0.1, -0.3, 0.9, -1.7)),
    *({"translate_x": pixels} for pixels in (1.0, -6.5, 17.3, -400.0, 1e6)),
    *({"translate_y": pixels} for pixels in (1.0, -6.5, 17.3, -400.0, -1e6)),
)


@pytest.mark.parametrize("size", SIZES)
def test_affine_gathers_agree(size: tuple[int, int]) -> None:
    # Every pixel tells its place, so that no wrong source goes unnoticed.
    height, width = size
    row, column = np.mgrid[:height, :width]
    image = jnp.asarray(np.stack([row, column, row * column % 251], -1).astype(np.uint8))
    matrices = jnp.stack([geometry.affine_matrix(height, width, **motion) for motion in MOTIONS])

    def both(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
        centred = jnp.clip(matrix[:, 2] + 0.5 * matrix[:, 0] + 0.5 * matrix[:, 1], -8192, 8192)
        start, step = geometry._fixed_point(centred), geometry._fixed_point(matrix[:, :2])
        gathered = geometry._affine_by_gather(image, start, step)
        return geometry._affine_by_products(image, start, step), gathered

    multiplied, gathered = jax.jit(jax.vmap(both))(matrices)
    for motion, one, other in zip(MOTIONS, multiplied, gathered):
        np.testing.assert_array_equal(one, other, err_msg=str(motion))


@pytest.mark.parametrize("size", SIZES)
def test_histograms_and_look_ups_agree(size: tuple[int, int]) -> None:
    image = jnp.asarray(photographs(size, 1)[0])
    np.testing.assert_array_equal(products.histogram(image), color._histogram(image))
    table = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)
    looked_up = products.look_up(image, jnp.asarray(table))
    np.testing.assert_array_equal(looked_up, color._look_up(image, jnp.asarray(table)))


@pytest.mark.parametrize("size", SIZES)
def test_counts_stay_exact_when_one_level_has_all_pixels(size: tuple[int, int]) -> None:
    flat = jnp.full((*size, 3), 137, jnp.uint8)
    assert (products.histogram(flat)[137] == size[0] * size[1]).all()


@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm", "tpu"])
def test_a_tpu_neither_gathers_nor_scatters_pixels(platform: str) -> None:
    function = jax.jit(functools.partial(augment_batch, jax.random.key(0)))
    images = jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.uint8)
    lowered = function.trace(images, 9.0).lower(lowering_platforms=(platform,)).as_text()
    assert bool(re.search(r"stablehlo\.(dynamic_)?(gather|scatter)", lowered)) == (
        platform != "tpu"
    )
