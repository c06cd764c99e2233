"""RandAugment and whole batches: who draws what, and which laws hold for every draw."""

import functools
import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from pictures import photographs

from effnetv2_jax.augment import OPERATIONS, augment_batch, cutout, normalize, randaugment
from effnetv2_jax.augment.autoaugment import draw as draw_for_autoaugment
from effnetv2_jax.augment.geometry import random_flip
from effnetv2_jax.augment.operations import apply_numbered
from effnetv2_jax.augment.randaugment import draw

SIZE = (33, 46)

augment = jax.jit(
    augment_batch, static_argnames=("flip", "policy", "layers", "contrast_fault", "cutout")
)
seeds = st.integers(0, 2**31 - 1)
few = functools.partial(settings, max_examples=10, deadline=None, derandomize=True)


def test_operations_signs_and_places_are_drawn_uniformly() -> None:
    draws = 32_000
    keys = jax.random.split(jax.random.key(0), draws)
    numbers, signs, centres = jax.vmap(lambda key: draw(key, 4, 8))(keys)
    counts = Counter(np.asarray(numbers).tolist())
    assert sorted(counts) == list(range(len(OPERATIONS)))
    expected = draws / len(OPERATIONS)
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_square < 37.7  # 99.9 % quantile for 15 degrees of freedom
    assert set(np.asarray(signs).tolist()) == {-1.0, 1.0}
    assert abs(np.asarray(signs).mean()) < 0.02
    places = np.asarray(centres)
    assert places.min(axis=0).tolist() == [0, 0]
    assert places.max(axis=0).tolist() == [3, 7]
    np.testing.assert_allclose(places.mean(axis=0), [1.5, 3.5], atol=0.05)


def test_layers_draw_independently_and_apply_one_after_another() -> None:
    image = jnp.asarray(photographs(SIZE, 1)[0])
    key = jax.random.key(3)

    @jax.jit
    def one_layer(key: jax.Array, image: jax.Array) -> jax.Array:
        number, sign, centre = draw(key, *SIZE)
        return apply_numbered(number, image, 8.0, sign=sign, centre=centre)

    expected = image
    for layer_key in jax.random.split(key):
        expected = one_layer(layer_key, expected)
    np.testing.assert_array_equal(jitted_randaugment(key, image, 8.0), expected)


@few()
@given(seed=seeds, magnitude=st.floats(0, 30))
def test_a_batch_is_its_images_one_by_one(seed: int, magnitude: float) -> None:
    images = jnp.asarray(photographs(SIZE, 4))
    key = jax.random.key(seed)
    together = augment(key, images, magnitude)
    assert together.shape == images.shape
    assert together.dtype == jnp.uint8
    np.testing.assert_array_equal(together, augment(key, images, magnitude))

    for own_key, image, result in zip(jax.random.split(key, 4), images, together):
        flip_key, policy_key = jax.random.split(own_key)
        np.testing.assert_array_equal(
            jitted_randaugment(policy_key, random_flip(flip_key, image), magnitude), result
        )


jitted_randaugment = jax.jit(randaugment)


@few()
@given(seed=seeds)
def test_without_a_policy_images_are_mirrored_or_left(seed: int) -> None:
    images = photographs(SIZE, 4)
    flipped = np.asarray(augment(jax.random.key(seed), images, policy="none"))
    for image, result in zip(images, flipped):
        assert (result == image).all() or (result == image[:, ::-1]).all()
    again = augment(jax.random.key(seed), flipped, policy="none")
    np.testing.assert_array_equal(again, images)


def test_half_of_the_images_are_mirrored() -> None:
    images = jnp.broadcast_to(jnp.array([0, 255], jnp.uint8)[None, None, :, None], (4000, 1, 2, 3))
    flipped = np.asarray(augment(jax.random.key(0), images, policy="none"))
    assert abs((flipped[:, 0, 0, 0] == 255).mean() - 0.5) < 0.03


def test_nothing_asked_for_is_nothing_done() -> None:
    images = photographs(SIZE, 4)
    result = augment(jax.random.key(0), images, 10.0, flip=False, policy="none")
    np.testing.assert_array_equal(result, images)


def test_an_unknown_policy_is_an_error() -> None:
    unchecked = inspect.unwrap(augment_batch)  # In tests its types are checked first.
    with pytest.raises(ValueError, match="'augmix' is not one of randaugment, increasing,"):
        unchecked(jax.random.key(0), photographs(SIZE, 1), policy="augmix")


@pytest.mark.parametrize("policy", ["randaugment", "autoaugment"])
def test_bits_do_not_depend_on_sharding_and_shards_do_not_communicate(
    policy: str, mesh: Mesh
) -> None:
    images = jnp.asarray(photographs(SIZE, 8))
    sharded = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
    options: dict[str, Any] = {"policy": policy, "cutout": 0.5}
    function = jax.jit(functools.partial(augment_batch, **options), out_shardings=sharded.sharding)
    key = jax.random.key(1)
    compiled = function.lower(key, sharded, 9.0).compile()
    unsharded = augment(key, images, 9.0, **options)
    np.testing.assert_array_equal(compiled(key, sharded, 9.0), unsharded)
    program = compiled.as_text()
    assert program is not None
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert collective not in program


def test_float64_mode_changes_nothing(x64: None) -> None:
    images = photographs(SIZE, 16)
    wide = augment(jax.random.key(2), images, 7.5, cutout=0.5)
    with jax.enable_x64(False):
        narrow = augment(jax.random.key(2), images, 7.5, cutout=0.5)
    assert wide.dtype == jnp.uint8
    np.testing.assert_array_equal(wide, narrow)


@pytest.mark.parametrize("policys_draw", [draw, draw_for_autoaugment])
def test_float64_mode_draws_the_same(policys_draw: Callable, x64: None) -> None:
    keys = jax.random.split(jax.random.key(0), 100)
    draws = jax.jit(jax.vmap(lambda key: policys_draw(key, *SIZE)))
    wide = draws(keys)
    with jax.enable_x64(False):
        narrow = draws(keys)
    jax.tree.map(np.testing.assert_array_equal, wide, narrow)


@few()
@given(seed=seeds, side=st.integers(0, 60))
def test_cutout_hides_at_most_its_square_under_noise(seed: int, side: int) -> None:
    image = jnp.zeros((40, 52, 3), jnp.uint8)
    result = np.asarray(cutout(jax.random.key(seed), image, side=side))
    rows, columns = np.nonzero(result.any(axis=-1))
    side -= side % 2
    if side == 0:
        assert rows.size == 0
        return
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert height <= side
    assert width <= side
    assert result.any(axis=-1).sum() == height * width
    assert height >= min(side // 2, 20)
    assert width >= min(side // 2, 26)


def test_cutouts_noise_is_uniform() -> None:
    noise = np.asarray(cutout(jax.random.key(0), jnp.zeros((64, 64, 3), jnp.uint8), side=256))
    assert noise.min() == 0
    assert noise.max() == 255
    assert abs(noise.mean() - 127.5) < 2
    counts = np.bincount(noise.reshape(-1), minlength=256)
    expected = noise.size / 256
    assert ((counts - expected) ** 2 / expected).sum() < 330.5  # 99.9 %, 255 degrees of freedom


@pytest.mark.parametrize("size", [32, 37, 39])
def test_a_batchs_cutout_of_half_the_size_reaches_a_quarter_around_its_centre(size: int) -> None:
    images = np.zeros((1000, size, size, 3), np.uint8)
    hide = functools.partial(augment, flip=False, policy="none")
    hidden = np.any(np.asarray(hide(jax.random.key(0), images, cutout=0.5)), axis=-1)
    # Pixels on either side of the centre, in which the released code counts.
    reach, centres = size // 4, np.arange(size)
    sides = np.minimum(centres + reach, size) - np.maximum(centres - reach, 0)
    for axis in (1, 2):
        found = hidden.any(axis=axis).sum(axis=1)
        assert (found.min(), found.max()) == (reach, 2 * reach)
        np.testing.assert_allclose(found.mean(), sides.mean(), atol=0.5)
        np.testing.assert_allclose(
            (found == 2 * reach).mean(), (sides == 2 * reach).mean(), atol=0.06
        )
    np.testing.assert_allclose(hidden.mean(), (sides.mean() / size) ** 2, atol=0.01)
    np.testing.assert_array_equal(hide(jax.random.key(0), images, cutout=0.0), images)


def test_cutout_comes_after_the_policy_and_changes_nothing_else() -> None:
    images = photographs(SIZE, 4)
    key = jax.random.key(5)
    bare, hidden = augment(key, images, 8.0), augment(key, images, 8.0, cutout=0.5)
    for own_key, image, result in zip(jax.random.split(key, 4), bare, hidden):
        cutout_key = jax.random.split(own_key, 3)[2]
        np.testing.assert_array_equal(cutout(cutout_key, image, side=SIZE[0] // 2), result)


def test_normalize_centres_and_scales_each_channel() -> None:
    images = jnp.array([[0, 128, 255]], jnp.uint8)
    result = normalize(images, (128.0, 128.0, 127.5), (128.0, 64.0, 127.5), jnp.bfloat16)
    assert result.dtype == jnp.bfloat16
    np.testing.assert_array_equal(result.astype(jnp.float32), [[-1.0, 0.0, 1.0]])
