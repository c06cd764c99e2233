"""Models and pictures of other channels than RGB."""

import dataclasses
import functools
import io
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image
from random_weights import assert_equal, random_variables, thin

from effnetv2_jax import create_model, load_pretrained, preprocess, save_pretrained
from effnetv2_jax.augment import augment_batch
from effnetv2_jax.cli.overrides import check_network, read_overrides
from effnetv2_jax.cli.plan import describe
from effnetv2_jax.config import AugmentConfig, CheckpointConfig, DataConfig, Experiment
from effnetv2_jax.config.checks import check
from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.data.pictures.box import Box
from effnetv2_jax.data.pictures.channels import to_channels
from effnetv2_jax.data.pictures.crops import resize
from effnetv2_jax.data.pictures.decode import decode, open_picture
from effnetv2_jax.data.record import DecodeError
from effnetv2_jax.models.complexity import complexity
from effnetv2_jax.models.efficientnet.names import TIMM
from effnetv2_jax.models.registry import families, family_of
from effnetv2_jax.models.shapes import variable_shapes
from effnetv2_jax.predict import predict
from effnetv2_jax.preprocessing import Preprocessing, cropped, squashed
from effnetv2_jax.train.loop import train
from effnetv2_jax.weights.channels import adapted
from effnetv2_jax.weights.convert import to_library
from effnetv2_jax.weights.errors import WeightsError

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (13, 17, 3), np.uint8)
FIVE = RANDOM.integers(0, 256, (13, 17, 5), np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    if kind == "NPY":
        np.save(buffer, pixels)
    elif kind == "TIFF":
        tifffile = pytest.importorskip("tifffile", reason="TIFF of many channels needs tifffile")
        tifffile.imwrite(buffer, pixels, photometric="minisblack", planarconfig="contig")
    else:
        Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("efficientnetv2-b0", {"width": 0.1, "depth": 0.1}),
        ("resnet50", {"repeats": (1,)}),
        ("resnet50d", {"repeats": (1,)}),
        ("vit-ti16", {"depth": 1}),
    ],
)
def test_only_the_stem_knows_the_channels(name: str, fields: dict[str, Any]) -> None:
    usual = variable_shapes(create_model(name, **fields))
    model = create_model(name, input_channels=5, **fields)
    assert model.preprocessing.channels == 5
    for path, shape in variable_shapes(model).items():
        if path == ("params", *family_of(name).stem):
            assert shape == (*usual[path][:2], 5, usual[path][3])
        else:
            assert shape == usual[path]


def test_every_family_of_ours_has_its_stem() -> None:
    assert {each.name for each in families() if each.stem} >= {"efficientnet", "resnet", "vit"}


def test_images_of_other_channels_are_refused() -> None:
    model = thin(input_channels=2)
    with pytest.raises(ValueError, match=r"must be \[B, H, W, 2\] .* not \(1, 32, 32, 3\)"):
        model.lazy_init(jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
    with pytest.raises(ValueError, match="input_channels must be above 0"):
        thin(input_channels=0)
    with pytest.raises(ValueError, match="for 3 channels, and input_channels is 2"):
        thin(input_channels=2, preprocessing=squashed(64))


def test_the_stem_alone_costs_more() -> None:
    grey, rgb = (complexity(thin(input_channels=c), height=32, width=32) for c in (1, 3))
    stem = thin().stem_features // 10 // 8 * 8 or 8
    assert rgb.total - grey.total == 2 * 9 * stem
    assert rgb.macs - grey.macs == 2 * 9 * stem * 16**2
    assert rgb.activations == grey.activations


def test_mean_and_deviation_follow_the_kernels() -> None:
    usual = Preprocessing(image_size=32, mean=(1.0, 2.0, 6.0), std=(3.0, 4.0, 5.0))
    assert usual.for_channels(3) is usual
    assert (usual.for_channels(1).mean, usual.for_channels(1).std) == ((3.0,), (4.0,))
    assert usual.for_channels(5).mean == (1.0, 2.0, 6.0, 1.0, 2.0)
    for fault in ({"mean": ()}, {"mean": (1.0, 2.0)}, {"std": (1.0, 2.0, 0.0)}):
        with pytest.raises(ValueError, match=r"mean|std"):
            Preprocessing(image_size=32, **fault)


def test_a_kernel_is_summed_or_repeated() -> None:
    kernel = RANDOM.normal(size=(3, 3, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(adapted(kernel, 1)[:, :, 0], kernel.sum(2))
    five = adapted(kernel, 5)
    np.testing.assert_array_equal(five[:, :, 3:], kernel[:, :, :2] * np.float32(0.6))
    assert five.dtype == np.float32


@pytest.mark.parametrize("library", ["timm", "effnetv2_jax"])
def test_weights_come_back_with_their_channels(tmp_path: Path, library: Any) -> None:
    model = thin(input_channels=5, class_names=tuple("abcdefg"))
    variables = random_variables(model)
    save_pretrained(tmp_path, model, variables, library=library)
    found, returned = load_pretrained(None, tmp_path)
    assert found.config.architecture() == model.config.architecture()
    assert (found.config.input_channels, found.preprocessing) == (5, model.preprocessing)
    assert_equal(returned, variables)


def test_weights_for_rgb_are_adapted_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = thin(preprocessing=cropped(64))
    variables = random_variables(model)
    arrays = to_library(model, variables, TIMM)
    save_pretrained(tmp_path, model, variables, library="effnetv2_jax")
    fields: dict[str, Any] = {"width": 0.1, "depth": 0.1, "input_channels": 1}
    grey, from_timm = load_pretrained("tf_efficientnetv2_b0", arrays, **fields)
    assert "for 3 channels, and the model takes 1 (input_channels): summed" in caplog.text
    ours, from_own = load_pretrained(None, tmp_path, input_channels=1)
    assert_equal(from_own, from_timm)
    assert ours.preprocessing == cropped(64).for_channels(1)
    assert grey.preprocessing.channels == 1
    kernels = (tree["params"]["stem"]["conv"]["kernel"] for tree in (from_own, variables))
    np.testing.assert_array_equal(*(np.asarray(kernel).sum(2) for kernel in kernels))


@pytest.mark.parametrize("library", ["torchvision", "keras"])
def test_libraries_without_channels_are_named(tmp_path: Path, library: Any) -> None:
    model = create_model("efficientnetv2-s", input_channels=1, padding="symmetric")
    with pytest.raises(WeightsError, match=r"no networks for 1 channels .*'timm'"):
        save_pretrained(tmp_path, model, {}, library=library)


def test_grey_is_luma_as_pillow_rounds_it() -> None:
    expected = np.asarray(Image.fromarray(RGB).convert("L"))
    for kind in ("PNG", "NPY"):
        found = decode(encoded(RGB, kind), channels=1)
        np.testing.assert_array_equal(found[..., 0], expected)
    grey = np.repeat(RGB[..., :1], 3, 2)
    np.testing.assert_array_equal(to_channels(grey, 1), RGB[..., :1])
    np.testing.assert_array_equal(to_channels(RGB[..., :1], 3), grey)
    for kind in ("PNG", "JPEG"):
        whole = decode(encoded(RGB[..., 0], kind), channels=1)
        part = open_picture(encoded(RGB[..., 0], kind), channels=1).part(Box(2, 3, 5, 7))
        np.testing.assert_array_equal(part, whole[2:7, 3:10])
        assert kind == "JPEG" or (whole[..., 0] == RGB[..., 0]).all()


@pytest.mark.parametrize("kind", ["NPY", "TIFF"])
def test_pictures_have_any_number_of_channels(kind: str) -> None:
    np.testing.assert_array_equal(decode(encoded(FIVE, kind), channels=5), FIVE)
    deep = FIVE.astype(np.uint16) << 4  # 12 bits
    np.testing.assert_array_equal(decode(encoded(deep, kind), channels=5), FIVE)
    with pytest.raises(DecodeError, match=r"has 5 channels, and the model takes 4"):
        decode(encoded(FIVE, kind), channels=4)
    with pytest.raises(DecodeError, match=r"13 x 17 x 5 values, more than three times max_pixels"):
        decode(encoded(FIVE, kind), channels=5, max_pixels=300)
    with pytest.raises(DecodeError, match="float32"):
        decode(encoded(FIVE.astype(np.float32), kind), channels=5)
    with pytest.raises(DecodeError):
        decode(encoded(FIVE, kind)[:-200], channels=5)


def test_planes_of_a_tiff_are_channels() -> None:
    tifffile = pytest.importorskip("tifffile", reason="TIFF of many channels needs tifffile")
    cube = FIVE[:5, :5]
    for options in ({"planarconfig": "separate"}, {}):
        buffer = io.BytesIO()
        planes = np.moveaxis(cube, -1, 0)
        tifffile.imwrite(buffer, planes, photometric="minisblack", **options)
        np.testing.assert_array_equal(decode(buffer.getvalue(), channels=5), cube)


def test_other_files_have_no_other_channels() -> None:
    for kind in ("PNG", "JPEG"):
        with pytest.raises(DecodeError, match=r"takes 5 channels .* only TIFF and \.npy"):
            open_picture(encoded(RGB, kind), channels=5)


@pytest.mark.parametrize("antialias", [False, True])
def test_channels_are_resized_by_themselves(antialias: bool) -> None:
    wanted = Preprocessing(image_size=8, antialias=antialias, interpolation="bicubic")
    rgb = resize(RGB, wanted)
    for channels in (1, 5):
        pixels = RGB[..., np.arange(channels) % 3]
        # OpenCV has other code for other numbers of channels, which may round otherwise.
        np.testing.assert_allclose(
            resize(pixels, wanted).astype(int),
            rgb[..., np.arange(channels) % 3],
            atol=0 if antialias else 1,
        )


def test_model_input_has_the_models_channels(tmp_path: Path) -> None:
    grey, five = (squashed(8).for_channels(channels) for channels in (1, 5))
    (tmp_path / "five.npy").write_bytes(encoded(FIVE, "NPY"))
    expected = preprocess(tmp_path / "five.npy", like=five)
    assert expected.shape == (1, 8, 8, 5)
    for same in (FIVE, FIVE[None], FIVE.astype(np.uint16) << 8):
        np.testing.assert_array_equal(preprocess(same, like=five), expected)
    assert preprocess([], like=five).shape == (0, 8, 8, 5)
    luma = np.asarray(Image.fromarray(RGB).convert("L"))
    pictures: tuple[Any, ...] = (RGB, luma, Image.fromarray(RGB))
    for same in pictures:
        np.testing.assert_array_equal(preprocess(same, like=grey), preprocess([luma], like=grey))
    with pytest.raises(DecodeError, match="picture 0: it has 3 channels"):
        preprocess(RGB, like=five)
    with pytest.raises(TypeError, match=r"or \[H, W, 5\], not uint8 \[13, 17, 4\]"):
        preprocess(FIVE[..., :4], like=five)


@pytest.mark.slow
def test_grey_is_augmented_as_rgb_of_equal_channels() -> None:
    key = jax.random.key(1)
    grey = jnp.asarray(RANDOM.integers(0, 256, (8, 16, 16, 1), np.uint8))
    options: dict[str, Any] = {"magnitude": 10.0, "policy": "randaugment", "layers": 4}
    found = augment_batch(key, grey, **options)
    expected = augment_batch(key, jnp.repeat(grey, 3, -1), **options)
    np.testing.assert_array_equal(found, expected[..., :1])
    assert (found != grey).any()


def test_policies_on_colours_are_refused_for_other_channels() -> None:
    images = jnp.stack([FIVE, FIVE])
    with pytest.raises(ValueError, match="not of 5"):
        augment_batch(jax.random.key(0), images)
    flip = functools.partial(augment_batch, policy="none", cutout=0.5)
    assert jax.eval_shape(flip, jax.random.key(0), images).shape == images.shape


def experiment(channels: int, **fields: Any) -> Experiment:
    model = dataclasses.replace(tiny.MODEL, input_channels=channels)
    return tiny.experiment(model=model, **{"data": DataConfig()} | fields)


def test_a_config_says_what_does_not_go_with_its_channels() -> None:
    check(experiment(1))
    plain = AugmentConfig(policy="none")
    check(experiment(5, augment=plain))
    with pytest.raises(
        ConfigError, match=r"augment\.policy is 'randaugment'.* 5; set it to 'none'"
    ):
        check(experiment(5))
    with pytest.raises(ConfigError, match=r"data\.mean is .*model\.input_channels 5"):
        check(experiment(5, augment=plain, data=DataConfig(mean=(1.0,) * 3)))


def test_an_evaluation_takes_its_runs_channels() -> None:
    own, other = (experiment(channels).model for channels in (3, 1))
    stated = read_overrides(["--config.model.input_channels=1"])
    with pytest.raises(ConfigError, match=r"model\.input_channels is 1, but RUN has 3"):
        check_network(experiment(1), stated, own, title="RUN")
    check_network(experiment(1), stated, own, title="RUN", adapted=True)
    check_network(experiment(1), stated, other, title="RUN")


def test_a_plan_says_the_channels() -> None:
    data = DataConfig(num_classes=3, num_train_examples=2016)
    assert "; pictures of 1 channel\n" in describe(experiment(1, data=data))


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "ending"), [(1, "png"), (5, "npy")])
def test_a_run_goes_through_with_other_channels(
    tmp_path: Path, channels: int, ending: str, quick_compilation: None
) -> None:
    """Trains on a folder, goes on from a checkpoint, predicts, and starts a run on RGB."""
    folder = tmp_path / "pictures"
    for number in range(48):
        place = folder / ("train" if number % 3 else "val") / f"class {number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = 100 * (number % 2) + RANDOM.integers(0, 100, (40, 44, channels), np.uint8)
        pixels = pixels if channels > 1 else pixels[..., 0]
        (place / f"{number}.{ending}").write_bytes(encoded(pixels, ending.upper()))
    run = experiment(
        channels,
        epochs=4.0,
        augment=AugmentConfig(policy="none", cutout=0.5, erasing=0.5),
        data=DataConfig(source="folder", path=str(folder), threads=1),
        checkpoint=CheckpointConfig(every_steps=3, keep_last=9),
    )
    whole, resumed, rgb = (tmp_path / name for name in ("whole", "resumed", "rgb"))
    train(run, whole)
    shutil.copytree(whole, resumed)
    steps = sorted((resumed / "checkpoints").iterdir(), key=lambda path: int(path.name))
    assert int(steps[0].name) == 3
    for later in steps[1:]:
        shutil.rmtree(later)
    train(run, resumed)
    model, variables = load_pretrained(None, whole)
    assert (model.config.input_channels, model.preprocessing.channels) == (channels, channels)
    assert_equal(load_pretrained(None, resumed)[1], variables)
    paths = sorted(map(str, folder.rglob(f"*.{ending}")))
    assert all(not each.error for each in predict(model, variables, paths))
    train(experiment(3, steps=2, init=str(whole)), rgb)
