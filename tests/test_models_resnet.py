"""ResNet, its D form and ResNet-RS: published counts, shapes, configs and how they begin."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_weights import random_variables

from effnetv2_jax import create_model, list_models
from effnetv2_jax.models.complexity import complexity
from effnetv2_jax.models.resnet import FAMILY, ResNetConfig
from effnetv2_jax.models.resnet.variants import VARIANTS
from effnetv2_jax.models.shapes import variable_shapes

pytestmark = pytest.mark.usefixtures("quick_compilation")

GOLDEN = {
    # Parameters, multiply-accumulates and activations at the size of evaluation.
    "resnet50": (25_557_032, 4_089_184_256, 11_114_984),
    "resnet101": (44_549_160, 7_801_405_440, 16_232_936),
    "resnet152": (60_192_808, 11_513_626_624, 22_555_112),
    "resnet50d": (25_576_264, 4_328_824_832, 11_917_800),
    "resnet101d": (44_568_392, 8_041_046_016, 17_035_752),
    "resnet152d": (60_212_040, 11_753_267_200, 23_357_928),
    "resnetrs50": (35_691_912, 2_278_629_376, 6_202_280),
    "resnetrs101": (63_618_696, 6_012_157_952, 12_704_424),
    "resnetrs152": (86_621_576, 15_527_886_848, 30_829_992),
    "resnetrs200": (93_209_992, 20_093_386_752, 43_423_144),
    "resnetrs270": (129_861_448, 26_950_189_056, 55_837_288),
    "resnetrs350": (163_956_168, 43_493_793_792, 87_094_504),
    "resnetrs420": (191_891_656, 63_942_344_704, 126_564_840),
}
FAST = ("resnetrs50",)


def thin(name: str = "resnetrs50", **fields: Any) -> Any:
    """One block in each stage, of few channels."""
    small: dict[str, Any] = {"num_classes": 3, "width": 8, "repeats": (1, 1, 1, 1)}
    return create_model(name, **small | fields)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in GOLDEN]
)
def test_published_counts(name: str) -> None:
    model = create_model(name)
    size = model.preprocessing.image_size
    counts = complexity(model, height=size, width=size)
    assert (counts.trainable, counts.macs, counts.activations) == GOLDEN[name]


def test_every_variant_is_counted_and_listed() -> None:
    assert GOLDEN.keys() == VARIANTS.keys()
    assert list_models("resnet*") == list(VARIANTS)


@pytest.mark.parametrize("name", ["resnet50", "resnet50d", "resnetrs50"])
def test_logits_and_features_of_any_size(name: str) -> None:
    model = thin(name)
    variables = random_variables(model)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 45, 64, 3)), jnp.float32)
    logits = jax.eval_shape(model.apply, variables, images)
    assert (logits.shape, logits.dtype) == ((2, 3), jnp.float32)
    pooled = model.clone(num_classes=0)
    assert jax.eval_shape(pooled.apply, variables, images).shape == (2, 256)
    maps = jax.eval_shape(model.clone(features_only=True).apply, variables, images)
    assert {reduction: x.shape for reduction, x in maps.items()} == {
        "reduction_1": (2, 23, 32, 8),
        "reduction_2": (2, 12, 16, 32),
        "reduction_3": (2, 6, 8, 64),
        "reduction_4": (2, 3, 4, 128),
        "reduction_5": (2, 2, 2, 256),
    }
    with pytest.raises(ValueError, match=r"H and W at least 32, not \(2, 31, 64, 3\)"):
        jax.eval_shape(model.apply, variables, images[:, :31])


def test_a_block_begins_as_its_shortcut() -> None:
    model = thin("resnet50", repeats=(1,))
    images = jnp.zeros((1, 32, 32, 3))
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    assert not params["stages_0_0"]["expand"]["bn"]["scale"].any()
    assert (params["stages_0_0"]["shortcut"]["bn"]["scale"] == 1).all()


def test_kernels_alone_decay() -> None:
    params = [path[1:] for path in variable_shapes(thin()) if path[0] == "params"]
    kept = {path[-1] for path in params if not FAMILY.decays(path)}
    decaying = {path[-1] for path in params if FAMILY.decays(path)}
    assert (kept, decaying) == ({"bias", "scale"}, {"kernel"})


@pytest.mark.slow
def test_bfloat16_keeps_parameters_and_logits_in_float32() -> None:
    model = thin(dtype="bfloat16", stochastic_depth_rate=0.5, dropout_rate=0.5)
    variables = random_variables(model)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 32, 32, 3)), jnp.float32)
    logits, updated = jax.jit(
        lambda variables, images: model.apply(
            variables,
            images,
            train=True,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats"],
        )
    )(variables, images)
    assert logits.dtype == jnp.float32
    assert jnp.isfinite(logits).all()
    assert {leaf.dtype for leaf in jax.tree.leaves(updated)} == {jnp.dtype("float32")}


def test_a_config_says_what_follows_from_its_name() -> None:
    config = ResNetConfig(name="resnetrs152", width=32)
    whole = config.resolved()
    assert (whole.repeats, whole.width, whole.se_ratio) == ((3, 8, 36, 3), 32, 0.25)
    assert config.renamed("resnet50").resolved() == ResNetConfig(name="resnet50").resolved()
    assert config.written_out() == dataclasses.replace(config, repeats=(3, 8, 36, 3))


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"repeats": ()}, r"repeats must hold numbers above 0, not \(\)"),
        ({"repeats": (1, 0)}, "repeats must hold numbers above 0"),
        ({"width": 7}, "width must be above 0, and even with deep_stem, not 7"),
        ({"se_ratio": 2.0}, r"se_ratio must be in \[0, 1\]"),
        ({"bn_group": 0}, "bn_group is 0"),
    ],
)
def test_what_makes_no_sense_is_named(fields: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=f"resnetrs50: {fault}"):
        create_model("resnetrs50", **fields)
