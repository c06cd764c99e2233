"""What training programs save: nested, averaged, under prefixes, with heads of their own."""

import logging
from typing import Any

import jax
import numpy as np
import pytest
from random_weights import assert_equal, random_variables, thin

from effnetv2_jax import WeightsError, load_pretrained
from effnetv2_jax.models.efficientnet.names import KERAS, TIMM, TORCHVISION
from effnetv2_jax.models.libraries import Library
from effnetv2_jax.weights.convert import to_library
from effnetv2_jax.weights.inert_pickle import Inert
from effnetv2_jax.weights.state_dicts import state_dict, strip_prefix

ONE, OTHER = np.ones(2), np.zeros(2)
MODEL = thin(num_classes=3)
VARIABLES = random_variables(MODEL)
ARRAYS = to_library(MODEL, VARIABLES, TIMM)
HEADLESS = {name: array for name, array in ARRAYS.items() if not name.startswith("classifier.")}
WITHOUT = MODEL.clone(num_classes=0)
WITHOUT_VARIABLES = random_variables(WITHOUT)


def load(arrays: Any, **fields: Any) -> tuple[Any, Any]:
    return load_pretrained("efficientnetv2-b0", arrays, width=0.1, depth=0.1, **fields)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": ONE}, ""),
        ({"state_dict": {"a": ONE}, "epoch": 3, "args": Inert("argparse.Namespace")}, ""),
        ({"model": {"a": ONE}, "optimizer": {"state": {}}}, ""),
        ({"state_dict": {"a": OTHER}, "state_dict_ema": {"a": ONE}}, "averaged weights are taken"),
        ({"model": {"a": OTHER}, "model_ema": {"a": ONE}}, "averaged weights are taken, model_ema"),
        ({"model": {"state_dict": {"a": ONE}}}, ""),
        ({"model": {"a": ONE}, "ema": None}, ""),
        ({"n_averaged": np.array(3), "a": ONE}, "averaged ones (n_averaged)"),
        ({"model": Inert("x.Net", state={"_parameters": {"a": ONE}, "_modules": {}})}, ""),
    ],
)
def test_weights_are_found_averages_first(
    content: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert state_dict(content, "x") == {"a": pytest.approx(ONE)}
    assert said in caplog.text
    assert bool(caplog.text) == bool(said)


@pytest.mark.parametrize(
    ("content", "held"),
    [
        ({}, "a dict of nothing"),
        ({"epoch": 3}, "a dict of 'epoch'"),
        (3, "int"),
        ([ONE], "list"),
    ],
)
def test_what_has_no_weights_is_told(content: Any, held: str) -> None:
    with pytest.raises(WeightsError, match=f"x has no state dict: it holds {held}"):
        state_dict(content, "x")


def test_a_module_that_was_saved_whole_is_its_arrays() -> None:
    inner = Inert("nn.Conv2d", state={"_parameters": {"weight": ONE, "bias": None}, "eps": 1})
    buffers = {"_buffers": {"mean": OTHER}}
    module = Inert("Net", state={"_modules": {"stem": inner, "act": Inert("nn.ReLU")}, **buffers})
    assert state_dict(module, "x").keys() == {"stem.weight", "mean"}
    module.state["_modules"]["again"] = module  # Which has no end.
    assert "again.again.stem.weight" in state_dict(module, "x")


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model.", "encoder.", "a.b.c."]
)
def test_prefixes_are_taken_off_whatever_they_are(prefix: str) -> None:
    # Deeper modules may have the same names.
    names = ("conv.weight", "layer.conv.weight", "x")
    found = strip_prefix({f"{prefix}{name}": ONE for name in names}, "conv.weight", "x")
    assert found is not None
    assert found.arrays.keys() == set(names)
    assert found.others == ()
    assert strip_prefix({"deconv.weight": ONE}, "conv.weight", "x") is None


def test_of_several_networks_the_averaged_one_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    two = {"model.conv.weight": OTHER, "model_ema.module.conv.weight": ONE, "loss.weight": OTHER}
    found = strip_prefix(two, "conv.weight", "x")
    assert found is not None
    np.testing.assert_array_equal(found.arrays["conv.weight"], ONE)
    assert found.others == ("model.conv.weight", "loss.weight")
    assert "x: its averaged weights are taken, model_ema.module." in caplog.text
    with pytest.raises(WeightsError, match=r"several networks, student\.\*, teacher\.\*; pass"):
        strip_prefix({"student.c": ONE, "teacher.c": ONE}, "c", "x")


def test_prefixes_and_nests_of_a_whole_network() -> None:
    nested = {"state_dict": {f"module._orig_mod.{k}": v for k, v in ARRAYS.items()}, "epoch": 1}
    model, variables = load(nested)
    assert model.num_classes == 3
    assert_equal(variables, VARIABLES)


def test_an_encoder_gives_features(caplog: pytest.LogCaptureFixture) -> None:
    encoder = {f"encoder.{name}": array for name, array in HEADLESS.items()}
    without = random_variables(MODEL)
    del without["params"]["classifier"]
    assert_equal(load(encoder)[1], without)
    beside = encoder | {"decoder.0.weight": np.zeros((2, 2, 3, 3), np.float32)}
    with pytest.raises(WeightsError, match=r"has decoder.0.weight in place of timm's classifier"):
        load(beside)
    assert_equal(load(beside, num_classes=0)[1], without)
    assert "left out decoder.0.weight" in caplog.text


@pytest.mark.parametrize("classes", [0, 5])
@pytest.mark.parametrize("head", ["pred", "classifier.0", "head.fc"])
def test_a_head_of_another_name_is_left_out_where_that_is_meant(
    classes: int, head: str, caplog: pytest.LogCaptureFixture
) -> None:
    own = {f"{head}.weight": np.zeros((5, 128)), f"{head}.bias": np.zeros(5, np.float32)}
    with pytest.raises(WeightsError, match=f"has {head}.weight, {head}.bias in place of timm's"):
        load(HEADLESS | own)
    with caplog.at_level(logging.WARNING):
        model, variables = load(HEADLESS | own, num_classes=classes)
    assert model.num_classes == classes
    assert f"left out {head}.weight, {head}.bias" in caplog.text
    classifier = variables["params"].pop("classifier", None)
    assert (classifier is None) == (classes == 0)
    assert variables["params"].keys() == VARIABLES["params"].keys() - {"classifier"}


@pytest.mark.parametrize(
    ("library", "head", "stated"),
    [(TORCHVISION, "classifier.3.weight", {"bn_epsilon": 1e-3}), (KERAS, "dense_1/kernel", {})],
    ids=["torchvision", "keras"],
)
def test_so_are_those_of_other_libraries(
    library: Library, head: str, stated: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    arrays = to_library(WITHOUT, WITHOUT_VARIABLES, library)
    own = {head: np.zeros((5, 7), np.float32)}
    with pytest.raises(WeightsError, match=f"has {head} in place of {library.title}'s "):
        load(arrays | own, **stated)
    _, variables = load(arrays | own, num_classes=0, **stated)
    assert_equal(variables, WITHOUT_VARIABLES)
    assert f"left out {head}" in caplog.text


def test_more_layers_are_no_head() -> None:
    for name, array in (
        ("blocks.9.0.weight", np.zeros(3)),
        ("extra.weight", np.zeros((3, 3, 3, 3))),
    ):
        with pytest.raises(WeightsError, match=f"1 unexpected: {name}"):
            load(HEADLESS | {name: array}, num_classes=0)
    with pytest.raises(WeightsError, match=r"1 unexpected: aux.weight"):
        load(ARRAYS | {"aux.weight": np.zeros(3)}, num_classes=0)


def test_feature_maps_need_no_head() -> None:
    ends = ("classifier.", "conv_head.", "bn2.")
    maps = {name: array for name, array in ARRAYS.items() if not name.startswith(ends)}
    expected = load(ARRAYS, features_only=True)[1]
    for arrays in (maps, HEADLESS, maps | {"fc.weight": np.zeros((5, 7))}):
        model, variables = load(arrays, features_only=True)
        assert model.features_only
        assert_equal(variables, expected)
    with pytest.raises(WeightsError, match=r"5 missing: bn2"):
        load(maps)


def test_weights_for_grey_pictures_have_a_model_for_them() -> None:
    model, _ = load(ARRAYS | {TIMM.sign: ARRAYS[TIMM.sign][:, :1]})
    assert model.config.input_channels == 1


def test_a_live_module_is_its_state_dict() -> None:
    class Module:
        def state_dict(self) -> Any:
            return {name: jax.numpy.asarray(array) for name, array in ARRAYS.items()}

    assert_equal(load(Module())[1], VARIABLES)
