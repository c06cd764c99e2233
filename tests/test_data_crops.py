"""Crops obey the laws they are named after; resizing is TensorFlow's."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from effnetv2_jax.data.pictures import crops
from effnetv2_jax.data.pictures.box import Box
from effnetv2_jax.data.pictures.crops import Law, eval_box, eval_image, resize
from effnetv2_jax.preprocessing import Interpolation, cropped, squashed

SIDES = st.integers(1, 600)
AREA, ASPECT = (0.05, 1.0), (3 / 4, 4 / 3)
IMAGE_SIZE = 224

random_box = functools.partial(crops.random_box, image_size=IMAGE_SIZE)


def inside(box: Box, height: int, width: int) -> bool:
    return (
        box.height > 0
        and box.width > 0
        and 0 <= box.top <= height - box.height
        and 0 <= box.left <= width - box.width
    )


@given(height=SIDES, width=SIDES, seed=st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_tensorflow_boxes_stay_within_the_limits_or_are_the_whole(
    height: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    box = random_box("tensorflow", height, width, area=(0.05, 0.9), aspect=ASPECT, rng=rng)
    assert inside(box, height, width)
    if box != Box(0, 0, height, width):
        assert 0.05 <= box.height * box.width / (height * width) <= 0.9
        assert ASPECT[0] * box.height - 0.5 <= box.width <= ASPECT[1] * box.height + 0.5


@given(height=SIDES, width=SIDES, seed=st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_efficientnet_boxes_hold_a_tenth_or_are_the_evaluations(
    height: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    box = random_box("efficientnet", height, width, area=(0.05, 0.9), aspect=ASPECT, rng=rng)
    assert inside(box, height, width)
    if box != eval_box(cropped(IMAGE_SIZE), height, width):
        assert 0.1 <= box.height * box.width / (height * width) <= 0.9
        assert ASPECT[0] * box.height - 0.5 <= box.width <= ASPECT[1] * box.height + 0.5


@given(height=SIDES, width=SIDES, seed=st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_torchvision_boxes_stay_within_the_limits(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    box = random_box("torchvision", height, width, area=(0.05, 0.9), aspect=ASPECT, rng=rng)
    assert inside(box, height, width)
    # Either side may be rounded by half a pixel; a side cannot be below one.
    ratios = [
        (box.width - 0.5) / (box.height + 0.5),
        (box.width + 0.5) / max(0.5, box.height - 0.5),
    ]
    assert ratios[0] <= ASPECT[1] or box.width == 1
    assert ratios[1] >= ASPECT[0] or box.height == 1
    if min(height, width) * 4 / 3 > max(height, width):
        assert (box.height - 0.5) * (box.width - 0.5) <= 0.9 * height * width


@pytest.mark.parametrize(
    ("law", "mean", "below_a_quarter"), [("tensorflow", 0.36, 0.42), ("torchvision", 0.44, 0.26)]
)
def test_crop_areas_of_both_laws(law: Law, mean: float, below_a_quarter: float) -> None:
    rng = np.random.default_rng(0)
    boxes = [random_box(law, 400, 500, area=AREA, aspect=ASPECT, rng=rng) for _ in range(8000)]
    areas = np.array([box.height * box.width / 200_000 for box in boxes])
    assert areas.mean() == pytest.approx(mean, abs=0.01)
    assert (areas < 0.25).mean() == pytest.approx(below_a_quarter, abs=0.02)


@pytest.mark.parametrize("law", ["tensorflow", "torchvision"])
def test_crops_reach_all_of_the_picture(law: Law) -> None:
    rng = np.random.default_rng(0)
    seen = np.zeros((40, 50), bool)
    for _ in range(500):
        box = random_box(law, 40, 50, area=AREA, aspect=ASPECT, rng=rng)
        seen[box.top : box.top + box.height, box.left : box.left + box.width] = True
    assert seen.all()


def test_impossible_crops_fall_back_as_the_originals_do() -> None:
    rng = np.random.default_rng(0)

    def box(law: Law) -> Box:
        return random_box(law, 10, 1000, area=(0.5, 1.0), aspect=ASPECT, rng=rng)

    assert box("tensorflow") == Box(0, 0, 10, 1000)
    assert box("efficientnet") == Box(1, 496, 8, 8)
    assert box("torchvision") == Box(0, 493, 10, 13)
    assert random_box("torchvision", 1000, 10, area=(0.5, 1.0), aspect=ASPECT, rng=rng) == Box(
        493, 0, 13, 10
    )


def by_tensorflow(
    law: str, height: int, width: int, area: tuple[float, float], count: int
) -> NDArray[np.int32]:
    """int [count, 4]: boxes of TensorFlow itself, called as the released programs call it."""
    tf = pytest.importorskip("tensorflow", reason="the reference law is TensorFlow's")
    options = {
        "tensorflow": {"min_object_covered": 0.0, "max_attempts": 100},
        "efficientnet": {"min_object_covered": 0.1, "max_attempts": 10},
    }[law]

    @tf.function
    def draw() -> Any:
        def one(_: Any) -> Any:
            begin, size, _ = tf.image.sample_distorted_bounding_box(
                [height, width, 3],
                tf.constant([0.0, 0.0, 1.0, 1.0], shape=[1, 1, 4]),
                seed=1,
                aspect_ratio_range=ASPECT,
                area_range=area,
                **options,
            )
            return tf.concat([begin[:2], size[:2]], axis=0)

        # One at a time, for their order is the order of the random numbers.
        indices = tf.range(count)
        return tf.map_fn(one, indices, fn_output_signature=tf.int32, parallel_iterations=1)

    tf.random.set_seed(0)
    return draw().numpy()


def largest_difference(first: np.ndarray, second: np.ndarray) -> float:
    """Between two samples' distribution functions, as in Kolmogorov and Smirnov's test."""
    values = np.concatenate([first, second])
    below = [np.searchsorted(np.sort(sample), values, "right") for sample in (first, second)]
    return np.abs(below[0] / len(first) - below[1] / len(second)).max()


@pytest.mark.parity
@pytest.mark.parametrize(("law", "area"), [("tensorflow", AREA), ("efficientnet", (0.08, 1.0))])
@pytest.mark.parametrize(("height", "width"), [(400, 500), (1000, 100), (100, 1000)])
def test_boxes_are_distributed_as_tensorflows(
    law: Law, area: tuple[float, float], height: int, width: int
) -> None:
    count = 10_000
    theirs = by_tensorflow(law, height, width, area, count)
    rng = np.random.default_rng(0)
    ours = np.array(
        [random_box(law, height, width, area=area, aspect=ASPECT, rng=rng) for _ in range(count)]
    )
    if law == "efficientnet":
        fallback = np.array(eval_box(cropped(IMAGE_SIZE), height, width))
        theirs[(theirs[:, 2:] == (height, width)).all(axis=1)] = fallback
        shares = [(boxes == fallback).all(axis=1).mean() for boxes in (ours, theirs)]
        assert shares[0] == pytest.approx(shares[1], abs=0.015)
        assert (shares[0] > 0.05) == ((height, width) != (400, 500))
    for measure in (
        lambda boxes: boxes[:, 0],
        lambda boxes: boxes[:, 1],
        lambda boxes: boxes[:, 2] * boxes[:, 3],
        lambda boxes: boxes[:, 3] / boxes[:, 2],
    ):
        # The 99.9 % quantile for two samples of one law.
        assert largest_difference(measure(ours), measure(theirs)) < 1.95 * (2 / count) ** 0.5


def test_no_crop_is_the_whole_picture() -> None:
    rng = np.random.default_rng(0)
    assert random_box("none", 30, 70, area=AREA, aspect=ASPECT, rng=rng) == Box(0, 0, 30, 70)


def test_center_box_is_224_of_a_short_side_of_256() -> None:
    assert eval_box(cropped(224), 256, 341) == Box(16, 58, 224, 224)
    assert eval_box(cropped(32), 1, 1) == Box(0, 0, 1, 1)


@given(height=SIDES, width=SIDES, size=st.integers(32, 1000))
def test_center_box_lies_inside(height: int, width: int, size: int) -> None:
    assert inside(eval_box(cropped(size), height, width), height, width)


def test_without_padding_the_crop_is_the_largest_square() -> None:
    whole = dataclasses.replace(cropped(224), crop_padding=0)
    assert eval_box(whole, 300, 401) == Box(0, 50, 300, 300)
    assert eval_box(squashed(224), 300, 401) == Box(0, 0, 300, 401)


def sampled(row: np.ndarray, size: int, kernel: Callable[[float], float], reach: int) -> np.ndarray:
    """Interpolates at half-pixel centres, the border repeated; without antialiasing."""
    result = []
    for index in range(size):
        at = (index + 0.5) * len(row) / size - 0.5
        first = int(np.floor(at)) - reach + 1
        taps = np.arange(first, first + 2 * reach)
        weights = np.array([kernel(abs(at - tap)) for tap in taps])
        result.append(weights @ row[taps.clip(0, len(row) - 1)])
    return np.array(result).clip(0, 255)


def triangle(x: float) -> float:
    return max(0.0, 1 - x)


def cubic(x: float, a: float = -0.75) -> float:
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


@pytest.mark.parametrize("size", [7, 20, 61])
@pytest.mark.parametrize(
    ("interpolation", "kernel", "reach"), [("bilinear", triangle, 1), ("bicubic", cubic, 2)]
)
def test_resizing_is_separable_interpolation_at_pixel_centres(
    size: int, interpolation: Interpolation, kernel: Callable[[float], float], reach: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    preprocessing = dataclasses.replace(squashed(size), interpolation=interpolation)
    resized = resize(pixels, preprocessing)
    assert resized.shape == (size, size, 3)
    assert resized.dtype == np.uint8
    # Pixel rows that do not vary isolate one direction.
    flat = np.repeat(pixels[:1], 20, axis=0)
    resized = resize(flat, preprocessing)
    for channel in range(3):
        expected = sampled(pixels[0, :, channel].astype(float), size, kernel, reach)
        np.testing.assert_allclose(resized[size // 2, :, channel], expected, atol=1.01)


def test_only_the_box_enters_the_result() -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[5:15, 8:22] = 200
    bicubic = dataclasses.replace(squashed(32), interpolation="bicubic")
    assert (resize(Box(5, 8, 10, 14).cut(pixels), bicubic) == 200).all()


def test_turned_views_resize_like_their_copies() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    view = Box(3, 2, 20, 15).cut(pixels.transpose(1, 0, 2)[::-1])
    np.testing.assert_array_equal(resize(view, squashed(40)), resize(view.copy(), squashed(40)))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_with_antialiasing_resizing_is_pillows(interpolation: Interpolation) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (61, 90, 3), np.uint8)
    smooth = dataclasses.replace(squashed(32), interpolation=interpolation, antialias=True)
    resampling = Image.Resampling[interpolation.upper()]
    expected = np.asarray(Image.fromarray(pixels).resize((32, 32), resampling))
    np.testing.assert_array_equal(eval_image(pixels, smooth), expected)
    rough = dataclasses.replace(smooth, antialias=False)
    assert np.abs(eval_image(pixels, rough).astype(int) - expected).mean() > 10
