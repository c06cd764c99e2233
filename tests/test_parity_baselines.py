"""ResNets and vision transformers against timm and torchvision: the same networks in float64."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_weights import random_variables

from effnetv2_jax import create_model, export_onnx, list_models, load_pretrained, save_pretrained
from effnetv2_jax.models.complexity import complexity
from effnetv2_jax.models.libraries import interchange_of
from effnetv2_jax.models.registry import family_of
from effnetv2_jax.models.shapes import variable_shapes
from effnetv2_jax.models.vit.model import resampled
from effnetv2_jax.weights.convert import entries, to_library

torch = pytest.importorskip("torch", reason="timm's models are PyTorch's")
from torch_models import to_torch  # noqa: E402

timm = pytest.importorskip("timm", reason="the reference models are timm's")

pytestmark = pytest.mark.parity

CLASSES = 10
BASELINES = [*list_models("resnet*"), *list_models("vit-*"), *list_models("deit-*")]
QUICK = ("resnet50d", "vit-ti16-384")
EACH = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.long]) for n in BASELINES]
)
THIN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # One of each kind with few blocks: our fields and timm's.
    "resnet50": ({"repeats": (1, 2, 1, 1)}, {"layers": (1, 2, 1, 1)}),
    "resnet50d": ({"repeats": (1, 2, 1, 1)}, {"layers": (1, 2, 1, 1)}),
    "resnetrs50": ({"repeats": (1, 2, 1, 1)}, {"layers": (1, 2, 1, 1)}),
    "vit-ti16": ({"depth": 3}, {"depth": 3}),
    "deit-ti": ({"depth": 3, "grid": 3}, {"depth": 3, "img_size": 48}),
}


def libraries_of(name: str) -> Any:
    interchange = interchange_of(family_of(name))
    assert interchange is not None
    return interchange


def timm_name(name: str) -> str:
    (found,) = (
        theirs
        for theirs, config in libraries_of(name).library("timm").models.items()
        if config.name == name
    )
    return str(found)


def theirs(name: str, **fields: Any) -> Any:
    """timm's model, whose arrays are all drawn, BatchNorm's statistics as well, in float64."""
    fields = {"num_classes": CLASSES} | fields
    if "resnet" not in name:
        # Pictures of any size, filled up to whole patches.
        fields |= {"dynamic_img_size": True, "dynamic_img_pad": True}
    model = timm.create_model(timm_name(name), pretrained=False, **fields).double()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, array in model.state_dict().items():
            if array.ndim > 1:
                spread = array[0].numel() ** -0.5 if array.ndim in (2, 4) else 0.3
                array.normal_(0, spread, generator=random)
            elif key.endswith(("weight", "running_var")):
                array.uniform_(0.5, 1.5, generator=random)
            elif array.is_floating_point():
                array.normal_(0, 0.2, generator=random)
    return model.eval()


def pictures(height: int, width: int, *, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, height, width, 3))


def logits_of(model: Any, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model(to_torch(images)).numpy())


def assert_logits_equal(
    name: str, model: Any, fields: dict[str, Any], size: Any, *, compiled: bool = True
) -> None:
    """And the weights go back bit for bit."""
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    ours, variables = load_pretrained(name, model.state_dict(), dtype="float64", **fields)
    images = pictures(*size)
    expected = logits_of(model, images)
    found = (jax.jit(ours.apply) if compiled else ours.apply)(variables, images)
    assert found.dtype == jnp.float64
    assert np.abs(expected).max() > 0.1
    # Deep networks of drawn weights make nearly the same of any noise; 1e-9 tells them apart.
    assert np.abs(expected[0] - expected[1]).max() > 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    returned = to_library(ours, variables, libraries_of(name).library("timm"))
    assert returned.keys() == state.keys()
    for key, value in returned.items():
        np.testing.assert_array_equal(value, state[key].numpy(), strict=True, err_msg=key)


@pytest.mark.usefixtures("x64", "quick_compilation")
@pytest.mark.parametrize("name", THIN)
def test_logits_equal_in_float64(name: str) -> None:
    our_fields, their_fields = THIN[name]
    # A size that is odd after each halving; positions are resampled in float32 by timm, so that
    # transformers are compared at their own size, and resampling by itself.
    size = (67, 75) if "resnet" in name else (224, 224) if name == "vit-ti16" else (47, 41)
    assert_logits_equal(name, theirs(name, **their_fields), our_fields, size)


@pytest.mark.long
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", BASELINES)
def test_logits_of_every_whole_network_equal_in_float64(name: str) -> None:
    side = 64 if "resnet" in name else create_model(name).preprocessing.image_size
    # Hundreds of equal layers compile for longer as one program than they run one by one.
    assert_logits_equal(name, theirs(name), {}, (side, side), compiled=False)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", [(14, 14), (24, 24), (6, 9), (13, 15), (1, 2)])
def test_positions_are_resampled_as_by_timm(size: tuple[int, int]) -> None:
    positions = np.random.default_rng(0).normal(size=(1, 1 + 14 * 14, 3))
    square = torch.from_numpy(positions[:, 1:].reshape(1, 14, 14, 3)).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(square, size, mode="bicubic", antialias=True)
    expected = expected.permute(0, 2, 3, 1).reshape(1, -1, 3).numpy()
    found = np.asarray(resampled(jnp.asarray(positions), 14, size))
    np.testing.assert_allclose(found[:, 1:], expected, rtol=0, atol=1e-9)
    by_timm = timm.layers.resample_abs_pos_embed(torch.from_numpy(positions), list(size))
    np.testing.assert_allclose(found, by_timm.numpy(), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("x64", "quick_compilation")
@pytest.mark.parametrize(
    "name", [pytest.param("resnetrs50", marks=pytest.mark.slow), "resnet50", "deit-ti"]
)
def test_gradients_equal_in_float64(name: str) -> None:
    our_fields, their_fields = THIN[name]
    model = theirs(name, **their_fields)
    ours, variables = load_pretrained(name, model.state_dict(), dtype="float64", **our_fields)
    height, width = (64, 67) if "resnet" in name else (48, 48)
    images = pictures(height, width, count=4)
    weights = np.random.default_rng(1).normal(size=(4, CLASSES))

    def loss_of(params: Any) -> Any:
        logits, updated = ours.apply(
            variables | {"params": params},
            images,
            train=True,
            dropout_rate=0.0,
            mutable=["batch_stats"],
        )
        return (weights * logits).sum(), updated

    grads, updated = jax.jit(jax.grad(loss_of, has_aux=True))(variables["params"])
    library = libraries_of(name).library("timm")
    found = to_library(ours, variables | updated | {"params": grads}, library)
    model.train()
    model.drop_rate = 0.0
    (model(to_torch(images)) * torch.from_numpy(weights)).sum().backward()
    scale = max(float(parameter.grad.abs().max()) for parameter in model.parameters())
    for key, parameter in model.named_parameters():
        np.testing.assert_allclose(
            found[key], parameter.grad.numpy(), rtol=1e-9, atol=1e-9 * scale, err_msg=key
        )
    for key, buffer in model.named_buffers():
        if key.endswith("running_mean"):  # PyTorch's variances are unbiased, and ours are not.
            np.testing.assert_allclose(found[key], buffer.numpy(), rtol=1e-9, atol=1e-9)


@EACH
def test_names_shapes_and_multiply_accumulates_are_timms(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(timm_name(name), pretrained=False)
    ours = create_model(name)
    library = libraries_of(name).library("timm")
    shapes = variable_shapes(ours)
    found = {
        key: library.to_theirs(entry.kind, np.broadcast_to(0, shapes[entry.path])).shape
        for key, entry in entries(ours, library).items()
    }
    state = {k: tuple(v.shape) for k, v in model.state_dict().items() if v.ndim}
    assert found == state

    macs = 0

    def count(module: Any, inputs: Any, output: Any) -> None:
        nonlocal macs
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            macs += output.numel() * module.weight[0].numel()
        elif isinstance(module, timm.layers.Attention):
            _, tokens, width = output.shape
            macs += 2 * tokens * tokens * width

    for module in model.modules():
        module.register_forward_hook(count)
    size = ours.preprocessing.image_size
    model.eval()(torch.empty((1, 3, size, size), device="meta"))
    assert complexity(ours, height=size, width=size).macs == macs


def test_published_weights_are_those_that_timm_hosts() -> None:
    for name in BASELINES:
        hosted = {
            settings.hf_hub_id: settings
            for full in timm.list_models(f"{timm_name(name)}.*", pretrained=True)
            if (settings := timm.get_pretrained_cfg(full)) is not None
        }
        interchange = libraries_of(name)
        assert name in interchange.tags
        for tag in interchange.tags[name]:
            each = interchange.published(name, tag)
            settings, ours = hosted[each.repository], each.preprocessing
            sizes = {settings.input_size: settings.crop_pct}
            if settings.test_input_size:
                sizes[settings.test_input_size] = settings.test_crop_pct or settings.crop_pct
            size = ours.image_size
            crop = sizes[(3, size, size)]
            assert ours.crop_padding == int(size / crop) - size
            assert ours.interpolation == settings.interpolation
            assert settings.num_classes == {"1k": 1000, "21k": 21_843}[each.classes]
            np.testing.assert_allclose(np.array(settings.mean) * 255, ours.mean)
            np.testing.assert_allclose(np.array(settings.std) * 255, ours.std)
            # As timm spells it.
            theirs = each.repository.split(".")[1]
            assert interchange.published(name, theirs) == each
        assert interchange.published(name, "no-such-tag") is None


def test_torchvisions_resnets_have_the_same_names() -> None:
    torchvision = pytest.importorskip("torchvision")
    library = libraries_of("resnet50").library("torchvision")
    assert set(library.models) == {"resnet50", "resnet101", "resnet152"}
    for name in library.models:
        with torch.device("meta"):
            state = torchvision.models.get_model(name).state_dict()
        ours = create_model(name)
        assert entries(ours, library).keys() == {k for k, v in state.items() if v.ndim}
        settings = torchvision.models.get_model_weights(name).IMAGENET1K_V1.transforms()
        preprocessing = ours.preprocessing
        assert settings.crop_size == [preprocessing.image_size]
        assert settings.resize_size == [preprocessing.image_size + preprocessing.crop_padding]
        assert settings.interpolation.value == preprocessing.interpolation
        np.testing.assert_allclose(np.array(settings.mean) * 255, preprocessing.mean)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deit-ti", "resnet50d"])
def test_timm_loads_what_is_saved_and_we_load_what_timm_saves(name: str, tmp_path: Path) -> None:
    model = theirs(name).float()
    timm.models.save_for_hf(model, tmp_path / "theirs", safe_serialization=True)
    ours, variables = load_pretrained(None, tmp_path / "theirs")
    assert ours.config.name in (name, {"deit-ti": "vit-ti16"}.get(name))
    names = tuple(f"kind {number}" for number in range(CLASSES))
    save_pretrained(tmp_path / "ours", ours.clone(class_names=names), variables)
    again = timm.create_model(f"local-dir:{tmp_path / 'ours'}", pretrained=True)
    assert again.pretrained_cfg["architecture"] == timm_name(name)
    assert again.pretrained_cfg["first_conv"] == model.pretrained_cfg["first_conv"]
    assert tuple(again.pretrained_cfg["label_names"]) == names
    for key, array in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[key].numpy(), array.numpy())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "name", [pytest.param("resnetrs50", marks=pytest.mark.slow), "resnet50", "deit-ti"]
)
def test_onnx_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("jax2onnx")
    small: dict[str, Any] = {"width": 16, "repeats": (1, 1, 1, 1)}
    if name == "deit-ti":
        # Whose positions are resampled.
        small = {"width": 16, "heads": 2, "depth": 2, "grid": 3}
    size = 33 if "resnet" in name else 64
    model = create_model(name, num_classes=CLASSES, **small)
    pixels = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), np.uint8)
    variables = random_variables(model)
    path = export_onnx(tmp_path / "model.onnx", model, variables, image_size=size)
    session = onnxruntime.InferenceSession(path)
    mean, std = np.array([model.preprocessing.mean, model.preprocessing.std], np.float32)
    apply = functools.partial(model.apply, train=False)
    expected = np.asarray(jax.jit(apply)(variables, (pixels - mean) / std))
    scale = np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 0.01 * scale
    for batch in (1, 4):
        (found,) = session.run(None, {"images": pixels[:batch]})
        np.testing.assert_allclose(found, expected[:batch], rtol=0, atol=1e-5 * scale)
