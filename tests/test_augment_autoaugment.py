"""AutoAugment: the published table, the law of its draws, and what they do to an image."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import photographs
from PIL import Image
from test_augment_operations import ENHANCING, GEOMETRIC, by_pillow, difficult_pictures

from effnetv2_jax.augment import OPERATIONS, augment_batch, autoaugment
from effnetv2_jax.augment.autoaugment import V0, draw
from effnetv2_jax.augment.batch import Policy
from effnetv2_jax.augment.geometry import random_flip
from effnetv2_jax.augment.operations import apply_numbered

SIZE = (64, 97)
LIMIT = 4
"""Standard deviations that a statistic may lie above its mean."""
ENTRIES = sorted({(name, level) for subpolicy in V0 for name, _, level in subpolicy})

augment = jax.jit(augment_batch, static_argnames="policy")
jitted_autoaugment = jax.jit(autoaugment)


@jax.jit
def operate(number: jax.Array, images: jax.Array, level: float, sign: float) -> jax.Array:
    """uint8 [B, H, W, 3]: one operation for all, at AutoAugment's reach."""

    def one(image: jax.Array) -> jax.Array:
        centre = jnp.zeros(2, jnp.int32)
        return apply_numbered(number, image, level, sign=sign, centre=centre, translate_const=250.0)

    return jax.vmap(one)(images)


def close(name: str, result: np.ndarray, expected: np.ndarray) -> bool:
    """As close as the operations are to Pillow's anywhere."""
    difference = np.abs(result.astype(int) - expected.astype(int))
    if name in GEOMETRIC:
        return np.any(difference > 0, axis=-1).mean() < 0.002
    return difference.max() <= (1 if name in (*ENHANCING, "AutoContrast") else 0)


@pytest.mark.parametrize(("name", "level"), ENTRIES)
def test_operations_at_the_tables_levels_are_pillows(name: str, level: int) -> None:
    pictures = difficult_pictures(SIZE)
    for sign in (1.0, -1.0) if name in GEOMETRIC else (1.0,):
        if name == "SolarizeAdd":
            added = np.minimum(pictures.astype(int) + int(level / 10 * 110), 255)
            expected = np.where(pictures < 128, added, pictures)
        else:
            # Pillow's stand-in reaches 100 pixels at level 10.
            reach = 250 / 100 if name == "TranslateY" else 1.0
            expected = by_pillow(name, pictures, reach * level, sign)
        result = np.asarray(operate(jnp.int32(OPERATIONS.index(name)), pictures, level, sign))
        assert close(name, result, expected)


@pytest.fixture(scope="module")
def timms_policy() -> list:
    """timm's policy, without interpolation, and with translations in pixels in place of shares."""
    pytest.importorskip("torch", reason="timm needs it")
    import torch_models  # noqa: F401  # It makes timm importable.

    timm = pytest.importorskip("timm.data.auto_augment", reason="the reference table is timm's")
    options = {
        "translate_const": 250,
        "img_mean": (128, 128, 128),
        "interpolation": Image.Resampling.NEAREST,
    }
    return [
        [
            timm.AugmentOp(op.name.removesuffix("Rel"), op.prob, op.magnitude, options)
            for op in subpolicy
        ]
        for subpolicy in timm.auto_augment_policy_v0(options)
    ]


@pytest.mark.parity
def test_the_table_is_timms(timms_policy: list) -> None:
    table = tuple(
        tuple((op.name, op.prob, op.magnitude) for op in subpolicy) for subpolicy in timms_policy
    )
    assert table == V0


@pytest.mark.parity
def test_operations_at_the_tables_levels_are_timms(timms_policy: list) -> None:
    pictures = difficult_pictures(SIZE)
    for op in (op for subpolicy in timms_policy for op in subpolicy):
        arguments: tuple[float, ...] = op.level_fn(op.magnitude, op.hparams) if op.level_fn else ()
        sign = math.copysign(1.0, arguments[0]) if op.name in GEOMETRIC else 1.0
        theirs = [
            # Pillow, to which timm hands on, refuses to keep no bit.
            picture & 128
            if (op.name, arguments) == ("Posterize", (0,))
            else np.asarray(op.aug_fn(Image.fromarray(picture), *arguments, **op.kwargs))
            for picture in pictures
        ]
        ours = np.asarray(
            operate(jnp.int32(OPERATIONS.index(op.name)), pictures, op.magnitude, sign)
        )
        assert close(op.name, ours, np.stack(theirs)), (op, arguments)


def joint_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """[25, 2, 2, 2, 2]: of sub-policy, both operations' application and both signs.

    Args:
      probabilities: [25, 2], with which operations are applied.
    """
    applied = np.stack([1 - probabilities, probabilities], axis=-1)
    both = applied[:, 0, :, None] * applied[:, 1, None, :]
    return np.tile(both[..., None, None] / 25 / 4, (1, 1, 1, 2, 2))


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Pearson's statistic less its mean, in its standard deviations; infinite if impossible."""
    expected = probabilities * counts.sum()
    possible = expected > 0
    if counts[~possible].any():
        return math.inf
    statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    freedom = possible.sum() - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


def test_draws_follow_the_table_uniformly_and_independently() -> None:
    keys = jax.random.split(jax.random.key(0), 200_000)
    subpolicy, applied, signs, centres = jax.jit(jax.vmap(lambda key: draw(key, 4, 8)))(keys)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    cells = np.stack([subpolicy, *applied.T, *(signs > 0).T]).astype(int)
    counts = np.zeros((25, 2, 2, 2, 2), int)
    np.add.at(counts, tuple(cells), 1)

    probabilities = np.array([[probability for _, probability, _ in pair] for pair in V0])
    assert chi_square(counts, joint_probabilities(probabilities)) < LIMIT
    # One probability that is wrong by half the table's unit would not pass.
    for entry in np.ndindex(25, 2):
        for error in (0.1, -0.1):
            wrong = probabilities.copy()
            wrong[entry] += error
            if 0 <= wrong[entry] <= 1:
                assert chi_square(counts, joint_probabilities(wrong)) > LIMIT

    places = np.asarray(centres).reshape(-1, 4)
    assert places.min(axis=0).tolist() == [0, 0, 0, 0]
    assert places.max(axis=0).tolist() == [3, 7, 3, 7]
    np.testing.assert_allclose(places.mean(axis=0), [1.5, 3.5, 1.5, 3.5], atol=0.02)
    assert np.abs(np.corrcoef(places.T) - np.eye(4)).max() < 0.01


def test_an_image_gets_the_operations_of_its_sub_policy_one_after_another() -> None:
    image = photographs((33, 46), 1)[0]
    keys = jax.random.split(jax.random.key(0), 120)
    draws = jax.vmap(lambda key: draw(key, 33, 46))(keys)
    results = jax.jit(jax.vmap(autoaugment, (0, None)))(keys, image)
    for subpolicy, applied, signs, _, result in zip(*map(np.asarray, draws), results):
        expected = image[None]
        for (name, _, level), is_applied, sign in zip(V0[subpolicy], applied, signs):
            if is_applied:
                expected = operate(jnp.int32(OPERATIONS.index(name)), expected, level, sign)
        np.testing.assert_array_equal(result, expected[0])
    assert set(np.asarray(draws[0])) == set(range(25))


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31 - 1))
def test_a_batch_is_its_images_one_by_one(seed: int) -> None:
    images = jnp.asarray(photographs((33, 46), 4))
    key = jax.random.key(seed)
    together = augment(key, images, policy="autoaugment")
    for own_key, image, result in zip(jax.random.split(key, 4), images, together):
        flip_key, policy_key = jax.random.split(own_key)
        np.testing.assert_array_equal(
            jitted_autoaugment(policy_key, random_flip(flip_key, image)), result
        )


@pytest.mark.parametrize(
    ("policy", "translate", "cutout"), [("randaugment", 100.0, 40.0), ("autoaugment", 250.0, 100.0)]
)
def test_a_policy_has_its_own_constants(policy: Policy, translate: float, cutout: float) -> None:
    def program(**constants: Any) -> str:
        run = functools.partial(augment_batch, magnitude=3.0, policy=policy, **constants)
        return str(jax.make_jaxpr(run)(jax.random.key(0), np.zeros((1, 33, 46, 3), np.uint8)))

    assert program() == program(translate_const=translate, cutout_const=cutout)
    assert program() != program(translate_const=translate / 2)
    assert program() != program(cutout_const=cutout / 2)
