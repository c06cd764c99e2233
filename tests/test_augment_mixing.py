"""Mixup and CutMix: the laws of weights, partners and groups."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from effnetv2_jax.augment import MixedBatch, mix

BATCH, HEIGHT, WIDTH = 12, 9, 14

jitted = jax.jit(mix, static_argnames=("group", "per_batch"))
few = functools.partial(settings, max_examples=20, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)
alphas = st.sampled_from([1e-6, 0.01, 0.067, 0.2, 0.5, 1.0, 4.0])
groups = st.sampled_from([1, 4])


def batch(size: int = BATCH) -> tuple[jax.Array, jax.Array]:
    """Image i is i + 1 everywhere, and its label is i."""
    labels = jnp.arange(size)
    images = jnp.broadcast_to((labels + 1.0)[:, None, None, None], (size, HEIGHT, WIDTH, 3))
    return images.astype(jnp.float32), labels


def run(
    seed: int, mixup: float, cutmix: float, group: int | None, *, per_batch: bool = False
) -> MixedBatch:
    images, labels = batch()
    mixed = jitted(
        jax.random.key(seed),
        images,
        labels,
        mixup_alpha=mixup,
        cutmix_alpha=cutmix,
        group=group,
        per_batch=per_batch,
    )
    return jax.tree.map(np.asarray, mixed)


def reversed_groups(group: int) -> np.ndarray:
    return np.arange(BATCH).reshape(-1, group)[:, ::-1].reshape(-1)


@few()
@given(seed=seeds, group=groups)
def test_without_alphas_images_return_bit_for_bit(seed: int, group: int) -> None:
    images, labels = batch()
    mixed = run(seed, 0.0, 0.0, group)
    np.testing.assert_array_equal(mixed.images, images)
    np.testing.assert_array_equal(mixed.labels, labels)
    np.testing.assert_array_equal(mixed.weight, np.ones(BATCH, np.float32))


@few()
@given(seed=seeds, alpha=alphas, group=groups)
def test_mixup_blends_with_the_partner(seed: int, alpha: float, group: int) -> None:
    mixed = run(seed, alpha, 0.0, group)
    np.testing.assert_array_equal(mixed.partner_labels, reversed_groups(group))
    assert mixed.weight.dtype == np.float32
    assert np.isfinite(mixed.weight).all()
    assert (mixed.weight >= 0.5).all()
    assert (mixed.weight <= 1).all()
    weight = mixed.weight[:, None, None, None]
    own, partner = mixed.labels + 1.0, mixed.partner_labels + 1.0
    expected = weight * own[:, None, None, None] + (1 - weight) * partner[:, None, None, None]
    np.testing.assert_allclose(mixed.images, np.broadcast_to(expected, mixed.images.shape), 1e-5)


@few()
@given(seed=seeds, alpha=alphas)
def test_cutmix_weighs_by_the_area_pasted(seed: int, alpha: float) -> None:
    mixed = run(seed, 0.0, alpha, 4)
    np.testing.assert_array_equal(mixed.partner_labels, reversed_groups(4))
    own = mixed.images == mixed.labels[:, None, None, None] + 1.0
    partner = mixed.images == mixed.partner_labels[:, None, None, None] + 1.0
    assert (own ^ partner).all()
    np.testing.assert_allclose(mixed.weight, own.mean(axis=(1, 2, 3)), rtol=1e-6)
    for pasted in partner[..., 0]:
        rows, columns = np.nonzero(pasted)
        if rows.size:
            assert pasted.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)


def test_by_batch_one_draw_serves_all_and_each_of_the_two_half_of_the_batches() -> None:
    pasted = 0
    for seed in range(60):
        mixed = run(seed, 0.8, 1.0, None, per_batch=True)
        assert len(np.unique(mixed.weight)) == 1
        # Of a pair of partners one has what is missing in the other.
        np.testing.assert_allclose(
            mixed.images + mixed.images[::-1], BATCH + 1 + 0 * mixed.images, rtol=1e-5
        )
        pure = mixed.images == mixed.labels[:, None, None, None] + 1
        pasted += bool((pure | (mixed.images == BATCH - mixed.labels[:, None, None, None])).all())
    assert 18 <= pasted <= 42


@few()
@given(seed=seeds)
def test_with_both_alphas_even_places_get_mixup_and_odd_ones_cutmix(seed: int) -> None:
    both = run(seed, 0.5, 0.4, 4)
    mixup, cutmix = run(seed, 0.5, 0.0, 4), run(seed, 0.0, 0.4, 4)
    even = np.arange(BATCH) % 2 == 0
    np.testing.assert_array_equal(both.weight, np.where(even, mixup.weight, cutmix.weight))
    np.testing.assert_allclose(both.images[even], mixup.images[even], rtol=1e-6)
    np.testing.assert_array_equal(both.images[~even], cutmix.images[~even])


def test_a_group_depends_on_no_other() -> None:
    images, labels = batch()
    changed = images.at[4:].multiply(-7)
    options = {"mixup_alpha": 0.3, "cutmix_alpha": 0.3, "group": 4}
    key = jax.random.key(5)
    np.testing.assert_array_equal(
        jitted(key, images, labels, **options).images[:4],
        jitted(key, changed, labels, **options).images[:4],
    )


def test_the_default_group_is_the_batch() -> None:
    np.testing.assert_array_equal(run(0, 0.2, 0.0, None).images, run(0, 0.2, 0.0, BATCH).images)


def test_weights_follow_their_laws() -> None:
    images, labels = batch(4000)
    images = images[:, :8, :8, :1]
    key = jax.random.key(0)
    mixup = jitted(key, images, labels, mixup_alpha=1.0, cutmix_alpha=0.0, group=2).weight
    # The larger of two parts of a stick broken at random: uniform between 1/2 and 1.
    np.testing.assert_allclose(
        np.quantile(mixup, [0.25, 0.5, 0.75]), [0.625, 0.75, 0.875], atol=0.02
    )
    narrow = jitted(key, images, labels, mixup_alpha=0.2, cutmix_alpha=0.0, group=2).weight
    assert np.mean(narrow > 0.9) > 0.6
    cutmix = jitted(key, images, labels, mixup_alpha=0.0, cutmix_alpha=1.0, group=2).weight
    assert np.std(cutmix) > 0.1
    assert 0.5 < np.mean(cutmix) < 0.8


def test_low_precision_images_keep_their_dtype() -> None:
    images, labels = batch()
    mixed = jitted(
        jax.random.key(0),
        images.astype(jnp.bfloat16),
        labels,
        mixup_alpha=0.2,
        cutmix_alpha=0.2,
        group=4,
    )
    assert mixed.images.dtype == jnp.bfloat16
    assert mixed.weight.dtype == jnp.float32


def test_float64_mode_draws_the_same(x64: None) -> None:
    images, labels = batch()
    options = {"mixup_alpha": np.float32(0.3), "cutmix_alpha": np.float32(0.3), "group": 4}
    wide = jitted(jax.random.key(1), images, labels, **options)
    with jax.enable_x64(False):
        narrow = jitted(jax.random.key(1), images, labels, **options)
    assert wide.images.dtype == jnp.float32
    np.testing.assert_allclose(wide.weight, narrow.weight, rtol=1e-6)


def test_groups_within_shards_do_not_communicate(mesh: Mesh) -> None:
    images, labels = batch(16)
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    sharded = jax.device_put((images, labels), sharding)
    options = {"mixup_alpha": 0.3, "cutmix_alpha": 0.3}
    function = jax.jit(functools.partial(mix, group=2), out_shardings=sharding)
    key = jax.random.key(4)
    compiled = function.lower(key, *sharded, **options).compile()
    there = compiled(key, *sharded, **options)
    here = jitted(key, images, labels, group=2, **options)
    np.testing.assert_array_equal(there.weight, here.weight)
    np.testing.assert_array_equal(there.images, here.images)
    program = compiled.as_text()
    assert program is not None
    for collective in ("all-gather", "all-to-all", "collective-permute"):
        assert collective not in program


def test_a_group_that_does_not_divide_the_batch_is_an_error() -> None:
    images, labels = batch()
    with pytest.raises(ValueError, match=r"group \(5\) does not divide the batch \(12\)"):
        mix(jax.random.key(0), images, labels, mixup_alpha=0.1, cutmix_alpha=0.0, group=5)
