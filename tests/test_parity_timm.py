"""timm's models give the same logits with the same weights, whichever way these went."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from effnetv2_jax import WeightsError, list_models, load_pretrained, save_pretrained
from effnetv2_jax.models.efficientnet.names import TIMM
from effnetv2_jax.models.efficientnet.published import TAGS, published
from effnetv2_jax.models.efficientnet.variants import VARIANTS
from effnetv2_jax.weights.convert import to_library

torch = pytest.importorskip("torch", reason="timm's models are PyTorch's")
from torch_models import randomize, relative_error  # noqa: E402

timm = pytest.importorskip("timm", reason="the reference models are timm's")

pytestmark = pytest.mark.parity

CLASSES = 10
SMALL = ("-b0", "-b1", "-b2", "-b3", "-s")
"""Compared at the size of their evaluation; the others at a smaller one that is not even."""
FAST = ("v2-b0", "v2-b3", "v2-s", "efficientnet-b0", "-lite0")
ENLARGED = ("efficientnet-lite3", "efficientnet-lite4")
"""Which timm measures at other sizes than their authors, 300 and 380 pixels."""


def theirs(name: str, height: int = 64, width: int = 75) -> Any:
    architecture = f"tf_{name.replace('-', '_')}"
    model = timm.create_model(architecture, pretrained=False, num_classes=CLASSES)
    return randomize(model, height, width)


def cases() -> list[Any]:
    return [
        pytest.param(name, marks=[] if name.endswith(FAST) else [pytest.mark.long])
        for name in list_models("efficientnet*")
    ]


@pytest.mark.parametrize("name", cases())
def test_logits_equal_and_weights_return_bit_for_bit(name: str) -> None:
    size = VARIANTS[name].eval_size
    height, width = (size, size) if name.endswith(SMALL) else (64, 75)
    model = theirs(name, height, width)
    ours, variables = load_pretrained(f"tf_{name.replace('-', '_')}", model.state_dict())
    assert relative_error(model, ours, variables, height, width) < 1e-4
    returned = to_library(ours, variables, TIMM)
    kept = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert returned.keys() == kept.keys()
    for key, value in returned.items():
        np.testing.assert_array_equal(value, kept[key].numpy())


@pytest.mark.parametrize("name", ["tf_efficientnetv2_s", "efficientnetv2_s", "efficientnetv2_rw_s"])
def test_each_kind_of_v2_is_the_same_in_double_precision(name: str, x64: None) -> None:
    """As thin as timm can build them; below they are whole."""
    numerics = {"bn_eps": 1e-3, "pad_type": "same"} if name.startswith("tf_") else {}
    scale = {"channel_multiplier": 0.2, "depth_multiplier": 0.1, "rw": name.endswith("_rw_s")}
    model = timm.models.efficientnet._gen_efficientnetv2_s(
        name, num_classes=CLASSES, **scale, **numerics
    )
    randomize(model, 64, 75)
    ours, variables = load_pretrained(
        name, model.state_dict(), width=0.2, depth=0.1, rounding_floor=0.9, dtype="float64"
    )
    assert relative_error(model.double(), ours, variables, 64, 75) < 1e-9


def in_timm() -> list[Any]:
    """Every EfficientNetV2 that timm has."""
    slow = ("tf_efficientnetv2_b0", "efficientnetv2_rw_t")
    return [
        pytest.param(name, marks=pytest.mark.slow if name in slow else pytest.mark.long)
        if not name.startswith("gc_")
        else name
        for name in timm.list_models("*efficientnetv2*")
    ]


@pytest.mark.parametrize("name", in_timm())
def test_every_v2_of_timms_is_the_same_in_double_precision_or_refused(
    name: str, tmp_path: Path, x64: None
) -> None:
    model = timm.create_model(name, pretrained=False, num_classes=CLASSES)
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    if name == "gc_efficientnetv2_rw_t":
        with pytest.raises(WeightsError, match=f"weights of {name}, a model that is not here"):
            load_pretrained(None, tmp_path)
        with pytest.raises(ValueError, match=f"unknown model '{name}'"):
            load_pretrained(name, model.state_dict())
        return
    randomize(model, 64, 75)
    ours, variables = load_pretrained(name, model.state_dict(), dtype="float64")
    assert relative_error(model.double(), ours, variables, 64, 75) < 1e-9
    told, _ = load_pretrained(None, tmp_path, dtype="float64")
    assert told.config == ours.config


def test_timms_own_padding_is_symmetric(tmp_path: Path) -> None:
    model = timm.create_model("efficientnet_b0", pretrained=False, num_classes=CLASSES)
    randomize(model, 64, 75)
    ours, variables = load_pretrained(
        "efficientnet-b0", model.state_dict(), padding="symmetric", bn_epsilon=1e-5
    )
    assert relative_error(model, ours, variables, 64, 75) < 1e-4
    save_pretrained(tmp_path, ours, variables)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert again.default_cfg["architecture"] == "efficientnet_b0"
    assert relative_error(again.eval(), ours, variables, 64, 75) < 1e-4


def test_timm_loads_what_is_saved_and_we_load_what_timm_saves(tmp_path: Path) -> None:
    model = theirs("efficientnetv2-b0")
    timm.models.save_for_hf(model, tmp_path / "theirs", safe_serialization=True)
    ours, variables = load_pretrained(None, tmp_path / "theirs")
    assert relative_error(model, ours, variables, 64, 75) < 1e-4
    preprocessing = ours.preprocessing
    assert (preprocessing.image_size, preprocessing.crop_padding) == (224, 32)
    assert (preprocessing.interpolation, preprocessing.antialias) == ("bicubic", True)

    names = tuple(f"kind {number}" for number in range(CLASSES))
    ours = ours.clone(class_names=names)
    save_pretrained(tmp_path / "ours", ours, variables)
    again = timm.create_model(f"local-dir:{tmp_path / 'ours'}", pretrained=True)
    assert relative_error(again.eval(), ours, variables, 64, 75) < 1e-4
    assert tuple(again.pretrained_cfg["label_names"]) == names
    settings = timm.data.resolve_data_config({}, model=again)
    assert tuple(settings["input_size"]) == (3, 224, 224)
    assert settings["crop_pct"] == 224 / 256
    np.testing.assert_allclose(np.array(settings["mean"]) * 255, preprocessing.mean)
    np.testing.assert_allclose(np.array(settings["std"]) * 255, preprocessing.std)


def test_published_weights_are_those_that_timm_hosts() -> None:
    for name, tags in TAGS.items():
        architecture = f"tf_{name.replace('-', '_')}"
        hosted = {
            settings.hf_hub_id: settings
            for full in timm.list_models(f"{architecture}.*", pretrained=True)
            if (settings := timm.get_pretrained_cfg(full)) is not None
        }
        found = {
            each.repository: each for tag in tags if (each := published(name, tag)) is not None
        }
        assert found.keys() == hosted.keys()
        for repository, each in found.items():
            settings, ours = hosted[repository], each.preprocessing
            assert settings.num_classes == {"1k": 1000, "21k": 21_843}[each.classes]
            # The authors' 128 is timm's 127.5.
            np.testing.assert_allclose(np.array(settings.mean) * 255, ours.mean, atol=0.51)
            np.testing.assert_allclose(np.array(settings.std) * 255, ours.std, atol=0.51)
            if name in ENLARGED:
                continue
            assert (settings.test_input_size or settings.input_size)[1] == ours.image_size
            if ours.crop_padding is not None:
                size = ours.image_size
                assert settings.crop_pct == pytest.approx(size / (size + 32), abs=0.002)


def test_states_within_checkpoints_are_found_averages_first(tmp_path: Path) -> None:
    model = theirs("efficientnetv2-b0")
    state = model.state_dict()
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    wrapped = {f"module.{name}": value for name, value in state.items()}
    halves = {k: v.bfloat16() if v.is_floating_point() else v for k, v in state.items()}
    for number, (content, exact) in enumerate(
        [
            (state, True),
            ({"state_dict": wrapped, "epoch": 3}, True),
            ({"state_dict": other, "state_dict_ema": state}, True),
            ({"model": other, "model_ema": state}, True),
            (halves, False),
        ]
    ):
        path = tmp_path / f"{number}.pth"
        torch.save(content, path)
        _, variables = load_pretrained("efficientnetv2-b0", path)
        kernel = state["classifier.weight"].numpy().T
        tolerance = 0 if exact else 0.01
        found = variables["params"]["classifier"]["kernel"]
        np.testing.assert_allclose(found, kernel, rtol=tolerance)
        assert jax.tree.leaves(variables)[0].dtype == np.float32
