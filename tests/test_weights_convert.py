"""Names and layouts of other libraries: complete, reversible, and checked on the way in."""

import numpy as np
import pytest
from random_weights import assert_equal, random_variables, thin

from effnetv2_jax import create_model
from effnetv2_jax.models.efficientnet.layers_by_name import layers
from effnetv2_jax.models.efficientnet.names import INTERCHANGE, KERAS, TF1, TIMM, TORCHVISION
from effnetv2_jax.models.libraries import Library
from effnetv2_jax.models.shapes import variable_shapes
from effnetv2_jax.weights.convert import (
    entries,
    from_library,
    from_own,
    to_library,
    to_own,
)
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.networks import stated_fields

LIBRARIES = INTERCHANGE.libraries
EACH_LIBRARY = pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)


@EACH_LIBRARY
@pytest.mark.parametrize("name", ["efficientnetv2-b1", "efficientnetv2-m", "efficientnet-b1"])
def test_there_and_back_every_array_is_the_same(name: str, library: Library) -> None:
    model = thin(name)
    variables = random_variables(model)
    back = from_library(model, to_library(model, variables, library), library)
    assert_equal(back, variables)


@pytest.mark.parametrize("name", ["efficientnetv2-b0", "efficientnetv2-xl", "efficientnet-b7"])
def test_every_array_has_one_name(name: str) -> None:
    model = thin(name)
    shapes = variable_shapes(model)
    for library in LIBRARIES:
        found = entries(model, library)
        assert {entry.path for entry in found.values()} == shapes.keys()
        assert len(found) == len(shapes)


def test_a_block_that_keeps_both_convolutions_has_names_for_them() -> None:
    model = create_model("efficientnetv2-s", **stated_fields(TIMM.models["efficientnetv2_rw_s"]))
    found = entries(model, TIMM)
    assert {entry.path for entry in found.values()} == variable_shapes(model).keys()
    names = ("conv_exp.weight", "bn1.bias", "conv_pwl.weight", "bn2.bias")
    assert {f"blocks.0.1.{name}" for name in names} < found.keys()


def test_under_our_own_names_every_array_is_the_same() -> None:
    model = thin()
    variables = random_variables(model)
    arrays = to_own(model, variables)
    assert {tuple(name.split("/")) for name in arrays} == variable_shapes(model).keys()
    back = from_own(model, arrays, title="")
    assert_equal(back, variables)


@EACH_LIBRARY
def test_a_library_is_known_by_its_first_layer_and_counts_classes_by_its_last(
    library: Library,
) -> None:
    first, *_, last = layers(thin())
    assert (library.layer_name(first), library.layer_name(last)) == (
        library.first,
        library.classifier,
    )
    others = [other for other in LIBRARIES if other is not library]
    names = entries(thin(), library)
    assert library.sign in names
    assert library.last_bias in names
    assert not {other.sign for other in others} & names.keys()


def test_names_are_those_of_the_released_checkpoints() -> None:
    names = entries(create_model("efficientnetv2-s"), TF1)
    for name in (
        "stem/conv2d/kernel",
        "stem/tpu_batch_normalization/moving_variance",
        "blocks_0/conv2d/kernel",  # Fused, expand 1
        "blocks_2/conv2d_1/kernel",  # Fused
        "blocks_39/depthwise_conv2d/depthwise_kernel",
        "blocks_39/tpu_batch_normalization_2/gamma",
        "blocks_39/se/conv2d_1/bias",
        "head/dense/kernel",
    ):
        assert name in names
    assert "blocks_0/depthwise_conv2d/depthwise_kernel" in entries(thin("efficientnet-b0"), TF1)


def test_names_are_those_of_torchvisions_models() -> None:
    names = entries(create_model("efficientnetv2-m"), TORCHVISION)
    for name in (
        "features.0.1.running_var",
        "features.1.2.block.0.0.weight",  # Fused, expand 1
        "features.2.0.block.1.1.bias",  # Fused
        "features.7.4.block.2.fc2.bias",
        "features.7.4.block.3.1.weight",
        "features.8.0.weight",
        "classifier.1.bias",
    ):
        assert name in names
    assert "features.1.0.block.1.fc1.weight" in entries(thin("efficientnet-b0"), TORCHVISION)


def test_a_model_without_classifier_or_head_has_no_names_for_them() -> None:
    model = thin()
    whole = {name: entry.path for name, entry in entries(model, TIMM).items()}
    for part in (model.clone(num_classes=0), model.clone(features_only=True)):
        names = {name: entry.path for name, entry in entries(part, TIMM).items()}
        assert set(names.values()) == variable_shapes(part).keys()
        assert names.items() < whole.items()


def test_faults_are_named_all_at_once() -> None:
    model = thin("efficientnetv2-b0")
    arrays = to_library(model, random_variables(model), TIMM)
    del arrays["bn1.weight"]
    arrays["extra.weight"] = np.zeros(1)
    arrays["classifier.bias"] = np.zeros(9)
    arrays["bn1.bias"] = np.full_like(arrays["bn1.bias"], np.nan)
    arrays["bn2.bias"] = arrays["bn2.bias"].astype(np.int32)
    with pytest.raises(WeightsError) as error:
        from_library(model, arrays, TIMM)
    for fault in (
        "1 missing: bn1.weight",
        "1 unexpected: extra.weight",
        "1 wrongly shaped: classifier.bias ((9,), not (7,))",
        "2 unfit: bn1.bias (NaN or infinite), bn2.bias (int32)",
    ):
        assert fault in str(error.value)


def test_of_many_missing_names_some_are_listed() -> None:
    with pytest.raises(WeightsError, match=r"\d+ missing: .* and \d+ more"):
        from_library(thin("efficientnetv2-b0"), {}, KERAS)


def test_counters_of_batches_are_no_weights() -> None:
    model = thin("efficientnetv2-b0")
    arrays = to_library(model, random_variables(model), TIMM)
    from_library(model, arrays | {"bn1.num_batches_tracked": np.array(3)}, TIMM)


def test_variables_that_lack_an_array() -> None:
    model = thin("efficientnetv2-b0")
    variables = random_variables(model)
    del variables["params"]["head"]
    with pytest.raises(WeightsError, match=r"missing: .*params/head/conv/kernel"):
        to_library(model, variables, TIMM)
