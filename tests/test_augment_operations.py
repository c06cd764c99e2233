"""Every operation against Pillow, or against the reference's formula where Pillow has none."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pictures import photographs
from PIL import Image, ImageEnhance, ImageOps

from effnetv2_jax.augment import OPERATIONS, apply_operation, color
from effnetv2_jax.augment.operations import apply_numbered

LEVELS = (0.0, 0.4, 1.0, 20 / 3, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0)
SIGNS = (1.0, -1.0)
SIZES = ((64, 97), (75, 52))

GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
TONE = ("AutoContrast", "Equalize", "Invert", "Posterize", "Solarize", "SolarizeAdd")
ENHANCING = ("Color", "Contrast", "Brightness", "Sharpness")


by_name = jax.jit(
    apply_operation,
    static_argnums=0,
    static_argnames=("contrast_fault", "translate_const", "cutout_const"),
)


def difficult_pictures(size: tuple[int, int]) -> np.ndarray:
    """Photographs, and pictures on which histograms and their divisions degenerate."""
    height, width = size
    rng = np.random.default_rng(0)
    ramp = np.broadcast_to(np.linspace(40, 90, width)[None, :, None], (height, width, 3))
    flat = np.broadcast_to(np.array([0, 77, 255]), (height, width, 3))
    almost_flat = np.full((height, width, 3), 200)
    almost_flat[3, 4] = (199, 0, 255)
    two_tone = np.where(rng.random((height, width, 1)) < 0.03, 10, 250) * np.ones(3)
    noise = rng.integers(0, 256, (height, width, 3))
    synthetic = [picture.astype(np.uint8) for picture in (ramp, flat, almost_flat, two_tone, noise)]
    return np.concatenate([photographs(size, 4), np.stack(synthetic)])


@functools.cache
def results(size: tuple[int, int]) -> dict[tuple[str, float, float], np.ndarray]:
    """uint8 [pictures, H, W, 3] for every operation, level and sign, by one compiled function."""
    pictures = jnp.asarray(difficult_pictures(size))
    centre = jnp.array([20, 45])

    @jax.jit
    def apply(number: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
        def one(image: jax.Array) -> jax.Array:
            return apply_numbered(number, image, level, sign=sign, centre=centre)

        return jax.vmap(one)(pictures)

    return {
        (name, level, sign): np.asarray(apply(jnp.int32(number), level, sign))
        for number, name in enumerate(OPERATIONS)
        for level in LEVELS
        for sign in SIGNS
        if sign > 0 or name in GEOMETRIC
    }


def transform(picture: Image.Image, *matrix: float) -> Image.Image:
    return picture.transform(
        picture.size,
        Image.Transform.AFFINE,
        matrix,
        Image.Resampling.NEAREST,
        fillcolor=(128, 128, 128),
    )


def posterize(picture: Image.Image, bits: int) -> Image.Image:
    # Pillow refuses to keep no bit; in the released code, TensorFlow shifts by 7 at most.
    return ImageOps.posterize(picture, min(max(bits, 1), 8))


def enhance(kind: Callable, picture: Image.Image, level: float) -> Image.Image:
    return kind(picture).enhance(1.8 * level / 10 + 0.1)


PILLOW: dict[str, Callable[[Image.Image, float, float], Image.Image]] = {
    "AutoContrast": lambda picture, level, sign: ImageOps.autocontrast(picture),
    "Equalize": lambda picture, level, sign: ImageOps.equalize(picture),
    "Invert": lambda picture, level, sign: ImageOps.invert(picture),
    "Rotate": lambda picture, level, sign: picture.rotate(
        sign * 3 * level, Image.Resampling.NEAREST, fillcolor=(128, 128, 128)
    ),
    "ShearX": lambda picture, level, sign: transform(picture, 1, sign * 0.03 * level, 0, 0, 1, 0),
    "ShearY": lambda picture, level, sign: transform(picture, 1, 0, 0, sign * 0.03 * level, 1, 0),
    "TranslateX": lambda picture, level, sign: transform(picture, 1, 0, sign * 10 * level, 0, 1, 0),
    "TranslateY": lambda picture, level, sign: transform(picture, 1, 0, 0, 0, 1, sign * 10 * level),
    "Posterize": lambda picture, level, sign: posterize(picture, int(4 * level / 10)),
    "Solarize": lambda picture, level, sign: ImageOps.solarize(picture, int(256 * level / 10)),
    "Color": lambda picture, level, sign: enhance(ImageEnhance.Color, picture, level),
    "Contrast": lambda picture, level, sign: enhance(ImageEnhance.Contrast, picture, level),
    "Brightness": lambda picture, level, sign: enhance(ImageEnhance.Brightness, picture, level),
    "Sharpness": lambda picture, level, sign: enhance(ImageEnhance.Sharpness, picture, level),
}


def by_pillow(name: str, pictures: np.ndarray, level: float, sign: float = 1.0) -> np.ndarray:
    moved = (PILLOW[name](Image.fromarray(picture), level, sign) for picture in pictures)
    return np.stack([np.asarray(picture) for picture in moved])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", [name for name in TONE if name in PILLOW])
def test_tone_operations_are_pillows(name: str, level: float, size: tuple[int, int]) -> None:
    expected = by_pillow(name, difficult_pictures(size), level).astype(int)
    difference = np.abs(results(size)[name, level, 1.0].astype(int) - expected)
    # Where a stretched level is a whole number, Pillow's float64 may fall just short of it.
    assert difference.max() <= (1 if name == "AutoContrast" else 0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ENHANCING)
def test_enhancing_operations_are_pillows(name: str, level: float, size: tuple[int, int]) -> None:
    expected = by_pillow(name, difficult_pictures(size), level).astype(int)
    difference = np.abs(results(size)[name, level, 1.0].astype(int) - expected)
    assert difference.max() <= 1
    # A factor that differs in its last bit tips products that are almost whole numbers.
    assert np.mean(difference > 0) < 0.06


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometric_operations_are_pillows(
    name: str, level: float, sign: float, size: tuple[int, int]
) -> None:
    expected = by_pillow(name, difficult_pictures(size), level, sign)
    moved = np.any(results(size)[name, level, sign] != expected, axis=-1)
    assert moved.mean() < 0.002


@pytest.mark.parametrize("level", LEVELS)
def test_solarize_add_is_the_references(level: float) -> None:
    pictures = difficult_pictures(SIZES[0]).astype(int)
    added = np.clip(pictures + int(110 * level / 10), 0, 255)
    expected = np.where(pictures < 128, added, pictures)
    np.testing.assert_array_equal(results(SIZES[0])["SolarizeAdd", level, 1.0], expected)


@pytest.mark.parametrize("level", LEVELS)
def test_cutout_is_the_references(level: float) -> None:
    expected = difficult_pictures(SIZES[0]).copy()
    half = int(40 * level / 10)
    expected[:, max(20 - half, 0) : 20 + half, max(45 - half, 0) : 45 + half] = 128
    np.testing.assert_array_equal(results(SIZES[0])["Cutout", level, 1.0], expected)


def test_faulty_contrast_is_the_released_codes() -> None:
    picture = photographs((96, 64), 1)[0]
    wrong_mean = min(96 * 64 // 256, 255)
    grey = Image.new("RGB", (64, 96), (wrong_mean,) * 3)
    expected = np.asarray(Image.blend(grey, Image.fromarray(picture), 1.8 * 0.8 + 0.1)).astype(int)
    result = np.asarray(by_name("Contrast", picture, 8.0, contrast_fault=True)).astype(int)
    assert np.abs(result - expected).max() <= 1
    assert np.abs(result - by_pillow("Contrast", picture[None], 8.0)[0]).mean() > 20


def test_faulty_mean_is_at_most_white() -> None:
    assert color.faulty_mean_grey(jnp.zeros((300, 300, 3), jnp.uint8)) == 255


@pytest.mark.parametrize(
    ("name", "level"),
    [
        *((name, 5.0) for name in ENHANCING),
        *((name, 0.0) for name in (*GEOMETRIC, "SolarizeAdd", "Cutout")),
        ("Solarize", 10.0),
        ("Solarize", 30.0),
        ("Posterize", 20.0),
        ("Posterize", 30.0),
    ],
)
def test_an_operation_without_effect_returns_the_image_bit_for_bit(name: str, level: float) -> None:
    np.testing.assert_array_equal(results(SIZES[0])[name, level, 1.0], difficult_pictures(SIZES[0]))


def test_solarize_from_zero_on_inverts() -> None:
    np.testing.assert_array_equal(
        results(SIZES[0])["Solarize", 0.0, 1.0], results(SIZES[0])["Invert", 1.0, 1.0]
    )


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("name", ["TranslateX", "TranslateY"])
def test_a_translation_past_the_image_leaves_fill(name: str, sign: float) -> None:
    assert (results(SIZES[0])[name, 10.0, sign] == 128).all()


def test_no_operation_has_number_minus_one() -> None:
    picture = photographs((48, 64), 1)[0]
    apply = jax.jit(functools.partial(apply_numbered, contrast_fault=True))
    unchanged = apply(jnp.int32(-1), picture, 7.0, sign=-1.0, centre=jnp.array([24, 32]))
    np.testing.assert_array_equal(unchanged, picture)


@pytest.mark.parametrize("name", ["Equalize", "Rotate", "Cutout"])
def test_choosing_by_name_is_choosing_by_number(name: str) -> None:
    picture = difficult_pictures(SIZES[0])[0]
    result = by_name(name, picture, 15.0, sign=-1.0, centre=(20, 45))
    sign = -1.0 if name in GEOMETRIC else 1.0
    np.testing.assert_array_equal(result, results(SIZES[0])[name, 15.0, sign][0])


def test_constants_set_how_far_translations_and_cutout_reach() -> None:
    picture = photographs((64, 64), 1)[0]
    far = by_name("TranslateX", picture, 2.0, translate_const=250.0)
    near = by_name("TranslateX", picture, 5.0, translate_const=100.0)
    np.testing.assert_array_equal(far, near)
    large = by_name("Cutout", picture, 2.0, cutout_const=100.0)
    small = by_name("Cutout", picture, 5.0, cutout_const=40.0)
    np.testing.assert_array_equal(large, small)


def test_an_unknown_operation_is_an_error() -> None:
    with pytest.raises(ValueError, match="'Solarise' is not one of AutoContrast, Equalize"):
        apply_operation("Solarise", jnp.asarray(photographs((32, 32), 1)[0]), 5.0)
