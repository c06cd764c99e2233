"""timm's config.json, of all the forms it has had: the right network and pictures, or a refusal."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from effnetv2_jax import Preprocessing, WeightsError
from effnetv2_jax.models.efficientnet.config import EfficientNetConfig
from effnetv2_jax.models.efficientnet.names import TIMM
from effnetv2_jax.preprocessing import IMAGENET_MEAN, IMAGENET_STD, cropped
from effnetv2_jax.weights.find import find_weights
from effnetv2_jax.weights.found import Found
from effnetv2_jax.weights.pretrained import model_for
from effnetv2_jax.weights.run_config import network_of

OF_S = {"architecture": "tf_efficientnetv2_s"}
LABELS = ("x", "y", "z")
TWELVE = tuple(f"n{label}" for label in range(12))


def folder(tmp_path: Path, content: Any) -> Found:
    """Weights without any but the first and the last array, to which a config belongs."""
    arrays = {TIMM.sign: np.zeros(1), TIMM.last_bias: np.zeros(3)}
    save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(content))
    return find_weights(tmp_path)


def timm(size: int = 224, crop: int | None = 32, **fields: Any) -> Preprocessing:
    """What timm does to pictures where the config does not say otherwise."""
    usual = {"interpolation": "bicubic", "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    return Preprocessing(image_size=size, crop_padding=crop, antialias=True, **(usual | fields))


HALF: dict[str, Any] = {"mean": (127.5,) * 3, "std": (127.5,) * 3}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, timm()),
        ({"input_size": [3, 192, 192]}, timm(192, 27)),
        ({"input_size": [3, 192, 192], "test_input_size": None, "crop_pct": 1.0}, timm(192, 0)),
        ({"input_size": [3, 192, 192], "test_input_size": [3, 256, 256]}, timm(256, 36)),
        (
            {"input_size": [3, 192, 192], "test_input_size": [3, 256, 256]}
            | {"fixed_input_size": True, "crop_pct": 0.5},
            timm(192, 192),
        ),
        ({"crop_pct": 0.9, "test_crop_pct": 1.0}, timm(224, 0)),
        (dict.fromkeys(("crop_pct", "mean", "std", "interpolation", "crop_mode")), timm()),
        ({"input_size": [1, 224, 224], "mean": [0.5], "std": [0.5]}, timm(**HALF).for_channels(1)),
        ({"input_size": [5, 224, 224]}, timm().for_channels(5)),
        (
            {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"},
            timm(**HALF, interpolation="bilinear"),
        ),
        ({"mean": [0.5], "std": [0.5]}, timm(**HALF)),
        ({"crop_mode": "squash", "crop_pct": 1.0}, timm(224, None)),
        ({"pool_size": [7, 7], "test_pool_size": [12, 12], "first_conv": "conv_stem"}, timm()),
    ],
)
def test_pictures_are_made_as_timm_makes_them(
    settings: dict[str, Any], expected: Preprocessing, tmp_path: Path
) -> None:
    assert folder(tmp_path, OF_S | {"pretrained_cfg": settings}).preprocessing == expected
    assert folder(tmp_path, OF_S | settings).preprocessing == expected


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"input_size": [3, 192, 256]}, r"input_size is \[3, 192, 256\], and images are square"),
        ({"interpolation": "lanczos"}, "interpolation is 'lanczos'"),
        ({"interpolation": "random"}, "interpolation is 'random'"),
        ({"crop_mode": "border"}, "crop_mode is 'border', which is not here"),
        ({"crop_mode": "squash", "crop_pct": 0.9}, "crop_mode is 'squash' with crop_pct=0.9"),
        ({"crop_pct": 1.2}, "crop_padding is -38"),
        ({"mean": [0.5, 0.5]}, "mean or std has 2 values for 3 channels"),
        ({"std": [0, 0, 0]}, "not numbers above 0"),
        ({"std": [float("nan")] * 3}, "not numbers above 0"),
        ({"mean": "half"}, "config.json: "),
        ({"input_size": [3, 192.5, 192.5]}, "cannot be interpreted as an integer"),
    ],
)
def test_what_we_cannot_do_to_pictures_is_refused_until_something_else_is_stated(
    settings: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    found = folder(tmp_path, OF_S | {"pretrained_cfg": settings})
    with pytest.raises(WeightsError, match=complaint) as error:
        found.preprocessing  # noqa: B018
    assert "pass the preprocessing that is meant" in str(error.value)
    assert model_for(found, preprocessing=cropped(224)).preprocessing == cropped(224)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, None),
        ({"label_names": None}, None),
        ({"label_names": ["x", "y", "z"]}, LABELS),
        ({"labels": ["x", "y", "z"]}, LABELS),
        ({"label_names": {"2": "z", "0": "x", "1": "y"}}, LABELS),
        ({"label_names": {str(label): f"n{label}" for label in range(12)}}, TWELVE),
        ({"label_names": {"0": "x", "2": "z"}}, ("x", "class 1", "z")),
        ({"label_names": {"0": "x", "1": "y"}, "num_classes": 3}, ("x", "y", "class 2")),
        ({"label_names": ["x", "n2", "z"], "label_descriptions": {"n2": "y", "x": None}}, LABELS),
    ],
)
def test_names_of_classes_are_names(
    content: dict[str, Any], expected: tuple[str, ...] | None, tmp_path: Path
) -> None:
    assert folder(tmp_path, OF_S | content).class_names == expected
    assert folder(tmp_path, OF_S | {"pretrained_cfg": content}).class_names == expected


@pytest.mark.parametrize(
    "names", [{"x": 0}, {"-1": "x"}, {"0": "x", "00": "y"}, {str(10**12): "x"}]
)
def test_labels_that_are_no_whole_numbers_are_refused(names: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be understood: "):
        folder(tmp_path, OF_S | {"label_names": names})


@pytest.mark.parametrize(
    ("content", "name", "fields"),
    [
        (OF_S, "efficientnetv2-s", ("same", 1e-3)),
        ({"architecture": "tf_efficientnetv2_s.in21k"}, "efficientnetv2-s", ("same", 1e-3)),
        ({"architecture": "efficientnetv2_m"}, "efficientnetv2-m", ("symmetric", 1e-5)),
        ({"architecture": "efficientnet_b5"}, "efficientnet-b5", ("symmetric", 1e-5)),
        (OF_S | {"model_args": None}, "efficientnetv2-s", ("same", 1e-3)),
        (
            OF_S | {"model_args": {"bn_eps": 1e-4, "pad_type": "", "drop_rate": 0.3}},
            "efficientnetv2-s",
            ("symmetric", 1e-4),
        ),
        (
            {"architecture": "efficientnetv2_s", "model_args": {"pad_type": "same", "in_chans": 3}},
            "efficientnetv2-s",
            ("same", 1e-5),
        ),
    ],
)
def test_the_config_says_how_the_network_computes(
    content: dict[str, Any], name: str, fields: tuple[str, float], tmp_path: Path
) -> None:
    found = folder(tmp_path, content)
    assert found.name == name
    config = found.network(EfficientNetConfig(name=name))
    assert isinstance(config, EfficientNetConfig)
    assert (config.padding, config.bn_epsilon) == fields
    with pytest.raises(WeightsError, match="has weights for bn_epsilon="):
        found.check(dataclasses.replace(config, bn_epsilon=0.1))


def test_the_config_says_the_channels(tmp_path: Path) -> None:
    for content in (
        {"model_args": {"in_chans": 5}},
        {"pretrained_cfg": {"input_size": [5, 224, 224]}},
    ):
        assert folder(tmp_path, OF_S | content).network(config_of_s()).input_channels == 5


def config_of_s() -> EfficientNetConfig:
    return EfficientNetConfig(name="efficientnetv2-s")


def test_a_run_that_starts_from_a_folder_takes_its_network(tmp_path: Path) -> None:
    found = folder(tmp_path, {"architecture": "efficientnetv2_rw_t"})
    told = network_of(str(tmp_path))
    assert told == TIMM.models["efficientnetv2_rw_t"]
    found.check(told)
    (tmp_path / "config.json").write_text("{}")
    assert network_of(str(tmp_path)) is None


def test_a_config_without_a_network_leaves_it_open(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not say which model it is for"):
        folder(tmp_path, {"pretrained_cfg": {"input_size": [3, 192, 192]}})
    found = find_weights(tmp_path, name="efficientnetv2-s")
    assert found.preprocessing == timm(192, 27)
    with pytest.raises(WeightsError, match="does not say how its network computes"):
        found.network(EfficientNetConfig(name="efficientnetv2-s"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"global_pool": "max"},
        {"act_layer": "mish"},
        {"pad_type": 3},
        {"se_layer": "gc"},
    ],
)
def test_arguments_that_make_another_network_are_refused(
    arguments: dict[str, Any], tmp_path: Path
) -> None:
    ((name, value),) = arguments.items()
    with pytest.raises(WeightsError, match=f"a network with {name}={value!r}, which is not here"):
        folder(tmp_path, OF_S | {"model_args": arguments})
