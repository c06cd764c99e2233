"""RandAugment of increasing strength: the law of its draws, and timm's operations."""

import functools
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from effnetv2_jax.augment import increasing
from effnetv2_jax.augment.increasing import as_level
from effnetv2_jax.augment.operations import OPERATIONS, apply_numbered

pytestmark = pytest.mark.usefixtures("quick_compilation")

LEVELS = (0.0, 0.9, 2.5, 4.99, 5.0, 7.3, 9.5, 10.0)


def picture(size: int = 20) -> np.ndarray:
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))


@jax.jit
def applied(number: jax.Array, image: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
    level, centre = as_level(number, level, sign), jnp.zeros(2, jnp.int32)
    return apply_numbered(number, image, level, sign=sign, centre=centre)


def apply(name: str, level: float, sign: float) -> np.ndarray:
    """The operation at that level, on the picture."""
    number = jnp.int32(OPERATIONS.index(name))
    values = (jnp.float32(level), jnp.float32(sign))
    return np.asarray(applied(number, jnp.asarray(picture()), *values), int)


@functools.partial(jax.jit, static_argnames=("layers", "deviation"))
def augmented(
    keys: jax.Array, image: jax.Array, magnitude: float, layers: int = 1, deviation: float = 0.0
) -> jax.Array:
    return jax.vmap(
        lambda key: increasing(key, image, magnitude, layers=layers, deviation=deviation)
    )(keys)


def test_a_layer_does_nothing_in_half_of_the_cases_and_deviates_around_its_magnitude() -> None:
    keys, image = jax.random.split(jax.random.key(0), 2000), jnp.asarray(picture())
    fixed = np.asarray(augmented(keys, image, 9.0))
    same = (fixed == picture()).all((1, 2, 3)).mean()
    # AutoContrast may leave an image as it is as well.
    assert 0.49 < same < 0.58
    # Rows that differ from all others come of the deviation alone.
    kinds = len(np.unique(fixed.reshape(len(keys), -1), axis=0))
    assert kinds < 40
    deviating = np.asarray(augmented(keys, image, 9.0, deviation=0.5))
    assert len(np.unique(deviating.reshape(len(keys), -1), axis=0)) > 150


@pytest.mark.parametrize(
    ("name", "milder", "stronger"),
    [("Posterize", 2.5, 7.5), ("Solarize", 3.0, 8.0), ("Color", 2.0, 9.0), ("Contrast", 2.0, 9.0)],
)
def test_a_higher_level_distorts_more(name: str, milder: float, stronger: float) -> None:
    mild, strong = (np.abs(apply(name, level, -1.0) - picture()) for level in (milder, stronger))
    assert 0 < mild.mean() < strong.mean()


@pytest.mark.parity
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("level", LEVELS)
def test_operations_are_timms(level: float, sign: float, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    importlib.import_module("torch_models")  # Without which timm may not find its torchvision.
    timm: Any = pytest.importorskip("timm.data.auto_augment")
    monkeypatch.setattr(timm, "_randomly_negate", lambda value: sign * value)
    image = picture()
    for ours, theirs in (
        ("Posterize", "PosterizeIncreasing"),
        ("Solarize", "SolarizeIncreasing"),
        ("SolarizeAdd", "SolarizeAdd"),
        ("Color", "ColorIncreasing"),
        ("Contrast", "ContrastIncreasing"),
        ("Brightness", "BrightnessIncreasing"),
        ("Sharpness", "SharpnessIncreasing"),
    ):
        arguments = timm.LEVEL_TO_ARG[theirs](level, {})
        if arguments == (0,):
            continue  # Of no bits Pillow made black pictures, until it refused to.
        expected = timm.NAME_TO_OP[theirs](Image.fromarray(image), *arguments)
        difference = np.abs(apply(ours, level, sign) - np.asarray(expected, int))
        # Pillow blends with a rounded factor and a degenerate image rounded in another way.
        assert difference.max() <= 1, (theirs, difference.max())
    # And geometric ones have the same arguments.
    assert timm.LEVEL_TO_ARG["Rotate"](level, {}) == pytest.approx((sign * 3 * level,))
    assert timm.LEVEL_TO_ARG["ShearX"](level, {}) == pytest.approx((sign * 0.03 * level,))
    assert timm.LEVEL_TO_ARG["TranslateXRel"](level, {}) == pytest.approx((sign * 0.045 * level,))
    names = {
        name.removesuffix("Increasing").removesuffix("Rel")
        for name in timm._RAND_INCREASING_TRANSFORMS
    }
    assert names == set(OPERATIONS) - {"Cutout"}
