"""The model family: published counts, layer rules, BatchNorm groups, JAX's transformations."""

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from effnetv2_jax import EfficientNet, create_model, list_models
from effnetv2_jax.models.complexity import complexity
from effnetv2_jax.models.efficientnet import FAMILY, EfficientNetConfig
from effnetv2_jax.models.efficientnet.blocks import MBConv
from effnetv2_jax.models.efficientnet.scaling import round_channels
from effnetv2_jax.models.efficientnet.variants import VARIANTS, StageSpec
from effnetv2_jax.models.layers import ACTIVATIONS, BatchNorm, SqueezeExcite, dropout
from effnetv2_jax.models.registry import model_of
from effnetv2_jax.models.shapes import variable_shapes

Variables = dict[str, Any]
KEY = jax.random.key(0)


pytestmark = pytest.mark.usefixtures("quick_compilation")


class Golden(NamedTuple):
    """A published model at 1,000 classes and its evaluation size."""

    trainable: int
    total: int
    gmacs: float
    blocks: int
    stem: int
    head: int
    sizes: tuple[int, int]
    dropout_rate: float


GOLDEN = {
    "b0": Golden(7_139_704, 7_200_312, 0.718, 21, 32, 1280, (192, 224), 0.2),
    "b1": Golden(8_141_052, 8_212_124, 1.197, 27, 32, 1280, (192, 240), 0.2),
    "b2": Golden(10_096_086, 10_178_374, 1.698, 28, 32, 1408, (208, 260), 0.3),
    "b3": Golden(14_358_406, 14_467_622, 3.011, 32, 40, 1536, (240, 300), 0.3),
    "s": Golden(21_458_488, 21_612_360, 8.366, 40, 24, 1280, (300, 384), 0.2),
    "m": Golden(54_139_356, 54_431_388, 24.582, 57, 24, 1280, (384, 480), 0.3),
    "l": Golden(118_515_272, 119_027_848, 56.080, 79, 32, 1280, (384, 480), 0.4),
    "xl": Golden(208_119_808, 208_896_832, 93.353, 100, 32, 1280, (384, 512), 0.4),
}
V1_TOTAL = {
    "b0": 5_330_564,
    "b1": 7_856_232,
    "b2": 9_177_562,
    "b3": 12_320_528,  # 12,314,268 without the correction of rounded channels
    "b4": 19_466_816,
    "b5": 30_562_520,
    "b6": 43_265_136,
}
V1_TRAINABLE = {"b7": 66_347_960, "b8": 87_413_142, "l2": 480_309_308}


class Lite(NamedTuple):
    """A published Lite model at 1,000 classes and its evaluation size."""

    trainable: int
    gmacs: float
    """Of convolutions and the classifier; the published 0.407, 0.631, 0.899, 1.44 and 2.64 have
    3 to 6 % more."""
    blocks: int
    size: int


LITE = {
    0: Lite(4_652_008, 0.385, 16, 224),
    1: Lite(5_416_680, 0.600, 21, 240),
    2: Lite(6_092_072, 0.860, 21, 260),
    3: Lite(8_197_096, 1.383, 24, 280),
    4: Lite(13_006_568, 2.553, 30, 300),
}
TRAINABLE_21K = {"s": 48_158_371, "m": 80_839_239, "l": 145_215_155, "xl": 234_819_691}

NANO = (
    StageSpec("fused", 3, 1, 1, 8, 1, 0.0),
    StageSpec("fused", 3, 2, 2, 8, 1, 0.0),
    StageSpec("mbconv", 3, 1, 2, 8, 1, 0.25),
)


def tiny(**overrides: Any) -> EfficientNet:
    """All of B0's stages, few channels and layers."""
    return create_model(
        "efficientnetv2-b0", **{"width": 0.25, "depth": 0.3, "num_classes": 5, **overrides}
    )


def nano(**overrides: Any) -> EfficientNet:
    """Every kind of block once, for what compiles slowly."""
    fields = {"stages": NANO, "stem": 8, "head": 16, "num_classes": 3}
    return create_model("efficientnetv2-b0", **{**fields, **overrides})


def without_noise(model: EfficientNet) -> EfficientNet:
    return model.clone(dropout_rate=0.0, stochastic_depth_rate=0.0)


def pictures(*shape: int, seed: int = 0, dtype: str = "float32") -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(*shape, 3)), dtype)


@functools.cache
def initial(model: EfficientNet) -> Variables:
    return jax.jit(functools.partial(model.init, KEY))(jnp.zeros((1, 32, 32, 3)))


def variables_of(model: EfficientNet, seed: int = 0) -> Variables:
    """Random variables that, unlike initial ones, cost no compilation and have no 0 and 1."""
    random = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = path[-1].key
        if name == "kernel":
            value = random.normal(size=leaf.shape) * np.prod(leaf.shape[:-1]) ** -0.5
        elif name in ("scale", "var"):
            value = random.uniform(0.5, 1.5, leaf.shape)
        else:
            value = random.normal(size=leaf.shape) * 0.2
        return jnp.asarray(value, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes_of(model))


def shapes_of(model: EfficientNet) -> Variables:
    return jax.eval_shape(functools.partial(model.init, KEY), jnp.zeros((1, 32, 32, 3)))


def leaves(tree: Any) -> Iterator[tuple[str, jax.Array]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def assert_trees_close(result: Any, reference: Any, tolerance: float) -> None:
    """Leaves agree within `tolerance` of the largest value of the whole tree."""
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(reference))
    for (name, a), (_, b) in zip(leaves(result), leaves(reference), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale, err_msg=name)


@functools.partial(jax.jit, static_argnums=0)
def evaluate(model: EfficientNet, variables: Variables, images: jax.Array) -> jax.Array:
    return model.apply(variables, images)  # type: ignore[return-value]


@functools.partial(jax.jit, static_argnums=0)
def train(
    model: EfficientNet,
    variables: Variables,
    images: jax.Array,
    key: jax.Array = KEY,
    dropout_rate: jax.Array | None = None,
) -> tuple[jax.Array, Variables]:
    """Logits and new statistics in training mode."""
    return model.apply(  # type: ignore[return-value]
        variables,
        images,
        train=True,
        dropout_rate=dropout_rate,
        rngs={"dropout": key},
        mutable=["batch_stats"],
    )


def loss(params: Any, model: EfficientNet, variables: Variables, images: jax.Array) -> jax.Array:
    """A smooth function of the parameters in training mode."""
    logits, _ = train(model, {**variables, "params": params}, images)
    return jnp.square(logits - 1).mean()


gradient = jax.jit(jax.grad(loss), static_argnums=1)


# Counts and tables


def test_every_variant_has_its_golden_numbers() -> None:
    v2 = [f"efficientnetv2-{name}" for name in GOLDEN]
    v1 = [f"efficientnet-{name}" for name in (*V1_TOTAL, *V1_TRAINABLE)]
    v1 += [f"efficientnet-lite{size}" for size in LITE]
    assert list_models("efficientnet*") == v2 + v1
    assert list_models("efficientnetv2*") == v2
    assert set(list_models()) >= {*v2, *v1}
    assert list_models("EfficientNet*") == []


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in ("m", "l", "xl") else []) for n in GOLDEN],
)
def test_counts_are_the_published_ones(name: str) -> None:
    golden, variant = GOLDEN[name], VARIANTS[f"efficientnetv2-{name}"]
    model = create_model(f"efficientnetv2-{name}")
    counts = complexity(model, height=variant.eval_size, width=variant.eval_size)
    assert (counts.trainable, counts.total) == (golden.trainable, golden.total)
    assert counts.macs == pytest.approx(golden.gmacs * 1e9, rel=0.01)
    assert (variant.train_size, variant.eval_size) == golden.sizes
    assert model.dropout_rate == golden.dropout_rate
    parts = model.bind({})
    assert len(parts.blocks) == golden.blocks
    assert (parts.stem.features, parts.head.features) == (golden.stem, golden.head)


@pytest.mark.parametrize(
    "name", ["s", *(pytest.param(name, marks=pytest.mark.slow) for name in ("m", "l", "xl"))]
)
def test_trainable_parameters_with_21843_classes(name: str) -> None:
    params = shapes_of(create_model(f"efficientnetv2-{name}", num_classes=21_843))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == TRAINABLE_21K[name]


@pytest.mark.parametrize("name", V1_TOTAL)
def test_v1_has_the_published_number_of_values(name: str) -> None:
    shapes = shapes_of(create_model(f"efficientnet-{name}"))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == V1_TOTAL[name]


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) for n in V1_TRAINABLE])
def test_large_v1_have_the_published_number_of_parameters(name: str) -> None:
    params = shapes_of(create_model(f"efficientnet-{name}"))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == V1_TRAINABLE[name]


@pytest.mark.parametrize("size", LITE)
def test_lite_has_the_published_counts_and_neither_scaled_ends_nor_gates(size: int) -> None:
    golden, name = LITE[size], f"efficientnet-lite{size}"
    model = create_model(name)
    counts = complexity(model, height=golden.size, width=golden.size)
    assert counts.trainable == golden.trainable
    assert counts.macs == pytest.approx(golden.gmacs * 1e9, rel=0.001)
    specs = model.block_specs()
    assert len(specs) == golden.blocks
    assert [spec.expand for spec in specs].count(1) == 1  # The first stage is not deeper,
    assert specs[-1].outputs != specs[-2].outputs  # nor the last.
    assert (model.activation, model.stem_features, model.head_features) == ("relu6", 32, 1280)
    assert {spec.se_ratio for spec in specs} == {0.0}
    assert VARIANTS[name].eval_size == golden.size
    written = model_of(EfficientNetConfig(name=name).written_out(), num_classes=1000)
    assert written.block_specs() == specs


def test_v1_settings_follow_its_evaluation_size() -> None:
    sizes = {n: (v.train_size, v.eval_size) for n, v in VARIANTS.items() if v.rounding_floor}
    assert sizes["efficientnet-b0"] == (176, 224)
    assert sizes["efficientnet-b7"] == (480, 600)


def test_macs_grow_with_the_picture() -> None:
    small, large = (complexity(tiny(), height=64, width=width) for width in (64, 128))
    assert large.macs == pytest.approx(2 * small.macs, rel=0.01)
    assert large.total == small.total


@given(st.integers(1, 4096), st.floats(0.1, 5.0).filter(lambda width: width != 1))
def test_channels_round_to_the_nearest_multiple_of_8(channels: int, width: float) -> None:
    rounded = round_channels(channels, width)
    assert rounded % 8 == 0
    assert rounded >= 8
    if channels * width >= 8:
        assert abs(rounded - channels * width) <= 4 + 1


@given(st.integers(1, 4096))
def test_width_1_keeps_any_number_of_channels(channels: int) -> None:
    assert round_channels(channels, 1.0) == channels


def test_rounding_lacks_the_usual_ten_percent_correction() -> None:
    assert round_channels(11, 1.01) == 8  # the correction would make it 16
    assert [round_channels(32, width) for width in (1.0, 1.1, 1.2, 1.4)] == [32, 32, 40, 48]


def test_depth_rounds_repeats_up_and_only_first_blocks_stride() -> None:
    spec = StageSpec("fused", 3, 2, 4, 32, 2, 0.0)
    model = create_model("efficientnetv2-b0", stages=(spec,), stem=16, depth=1.1)
    params = shapes_of(model)["params"]
    blocks = [
        (
            block.stride,
            params[f"blocks_{index}"]["expand"]["conv"]["kernel"].shape[2],
            block.outputs,
        )
        for index, block in enumerate(model.block_specs())
    ]
    assert blocks == [(2, 16, 32), *[(1, 32, 32)] * 2]


@pytest.mark.parametrize("name", ["efficientnetv2-b0", "efficientnetv2-s"])
def test_stochastic_depth_rises_over_all_blocks(name: str) -> None:
    blocks = create_model(name).bind({}).blocks
    count = GOLDEN[name.split("-")[1]].blocks
    survival = [1 - block.drop_rate for block in blocks]
    assert survival == pytest.approx([1 - 0.2 * index / count for index in range(count)])


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("efficientnetv2-xs", "efficientnetv2-s"),
        ("efficientnet-v2-b0", "efficientnetv2-b0"),
        ("EfficientNetV2-M", "efficientnetv2-m"),
    ],
)
def test_unknown_name_is_an_error_that_names_the_closest(name: str, closest: str) -> None:
    with pytest.raises(ValueError, match=f"{name!r}; did you mean {closest!r}?.*efficientnetv2-xl"):
        create_model(name)


def test_unknown_name_that_resembles_none_lists_them_all() -> None:
    with pytest.raises(ValueError, match=r"'zzz'\. Known models: efficientnetv2-b0, "):
        create_model("zzz")


def test_overrides_reach_the_model_and_unknown_ones_are_errors() -> None:
    assert create_model("efficientnetv2-b3", bn_momentum=0.5).bn_momentum == 0.5
    with pytest.raises(TypeError, match="bn_momentun"):
        create_model("efficientnetv2-b3", bn_momentun=0.5)


# Configs


@pytest.mark.parametrize("name", list_models("efficientnet*"))
def test_with_its_table_written_out_a_model_is_the_same_network(name: str) -> None:
    config = EfficientNetConfig(name=name)
    written = config.written_out()
    assert written.stages is not None
    assert written.written_out() == written
    named, stated = (model_of(each, num_classes=7) for each in (config, written))
    assert stated.block_specs() == named.block_specs()
    assert stated.bind({}).stem.features == named.bind({}).stem.features
    assert stated.bind({}).head.features == named.bind({}).head.features
    if len(named.block_specs()) < 40:  # Shapes of the others take long.
        assert variable_shapes(stated) == variable_shapes(named)


def test_what_is_stated_beside_a_name_still_scales_a_table_that_is_written_out() -> None:
    for width, depth in ((0.5, None), (None, 0.5), (0.5, 2.0)):
        config = EfficientNetConfig(name="efficientnetv2-b2", width=width, depth=depth)
        models = [model_of(each, num_classes=7) for each in (config, config.written_out())]
        assert models[0].block_specs() == models[1].block_specs()
    own = EfficientNetConfig(name="efficientnetv2-b2", stages=NANO)
    assert [row.outputs for row in model_of(own, num_classes=7).block_specs()] == [8, 8, 8]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"width": 0.3, "depth": 0.7, "dtype": "bfloat16", "remat": "blocks"},
        {"stages": NANO, "stem": 8, "head": 16, "fixed_ends": True, "activation": "relu6"},
        {"padding": "symmetric", "bn_epsilon": 1e-5, "bn_momentum": 0.9, "bn_group": 4},
        {"bn_frozen": True, "stochastic_depth_rate": 0.1, "rounding_floor": 0.5},
    ],
)
@pytest.mark.parametrize("name", ["efficientnetv2-b2", "efficientnet-b4"])
def test_a_model_knows_the_config_it_was_built_from(name: str, fields: dict[str, Any]) -> None:
    model = create_model(name, num_classes=7, **fields)
    config = model.config
    assert config == EfficientNetConfig(name=name, **fields).resolved()
    assert FAMILY.build(config, num_classes=7, preprocessing=FAMILY.variants[name]) == model
    assert config.resolved() == config


def test_each_activation_gives_other_logits() -> None:
    images = 100 * pictures(2, 32, 32)  # Beyond ReLU6's bound.
    variables = variables_of(nano())
    logits = {name: evaluate(nano(activation=name), variables, images) for name in ACTIVATIONS}
    assert len({tuple(np.asarray(each).ravel().tolist()) for each in logits.values()}) == 4


# Initial values


def test_kernels_start_at_their_fan_out_and_classifier_within_its_bound() -> None:
    classes = 400
    params = initial(tiny(width=1.0, depth=0.01, num_classes=classes))["params"]
    kernels = {name: leaf for name, leaf in leaves(params) if name.endswith("kernel")}
    assert len(kernels) == 1 + 1 + 2 * 2 + 3 * (3 + 2) + 1 + 1, "stem, blocks, head, classifier"
    for name, kernel in kernels.items():
        height, width, outputs = (*kernel.shape[:-2], 1, 1)[:2] + kernel.shape[-1:]
        fan_out = height * width * (1 if "depthwise" in name else outputs)
        variance, spread = 2 / fan_out, 2.0  # the spread of z^2 is 2 for a normal z
        if name.startswith("classifier"):
            variance, spread = 1 / (3 * classes), 0.8
            assert float(jnp.abs(kernel).max()) <= classes**-0.5
        ratio = float(jnp.square(kernel).mean()) / variance
        assert abs(ratio - 1) < 5 * (spread / kernel.size) ** 0.5, name
        assert abs(float(kernel.mean())) < 5 * (variance / kernel.size) ** 0.5, name


def test_biases_start_at_0_and_batchnorm_at_identity() -> None:
    variables = initial(nano())
    expected = {"bias": 0, "scale": 1, "mean": 0, "var": 1}
    found = {name: leaf for name, leaf in leaves(variables) if not name.endswith("kernel")}
    assert len(found) > 30
    for name, leaf in found.items():
        assert (leaf == expected[name.split("/")[-1]]).all(), name


# Inputs and outputs


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_logits_and_variables_are_float32(dtype: str) -> None:
    model = tiny(dtype=dtype)
    variables = shapes_of(model)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float32"}
    logits, updates = jax.eval_shape(
        functools.partial(train, model), variables, pictures(2, 32, 32)
    )
    assert (logits.shape, logits.dtype) == ((2, 5), jnp.float32)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(updates)} == {"float32"}
    maps = jax.eval_shape(
        functools.partial(model.apply, method="features"), variables, pictures(2, 32, 32)
    )
    assert {feature.dtype.name for feature in maps.values()} == {dtype}


def test_bfloat16_logits_stay_close_to_float32s() -> None:
    variables, images = variables_of(nano()), pictures(4, 64, 64)
    exact, rounded = (
        evaluate(nano(dtype=dtype), variables, images) for dtype in ("float32", "bfloat16")
    )
    assert float(jnp.abs(rounded - exact).max()) < 0.03 * float(jnp.abs(exact).max())


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (75, 301)])
def test_features_halve_any_size_rounding_up(size: tuple[int, int]) -> None:
    model = tiny()
    maps = jax.eval_shape(
        functools.partial(model.apply, method="features"), shapes_of(model), pictures(2, *size)
    )
    assert list(maps) == [f"reduction_{index}" for index in range(1, 6)]
    for index, feature in enumerate(maps.values(), start=1):
        assert feature.shape[:3] == (2, *(-(-side // 2**index) for side in size))
    assert [feature.shape[3] for feature in maps.values()] == [8, 8, 16, 32, 48]


def test_features_are_the_last_of_each_resolution() -> None:
    model = create_model("efficientnetv2-s")
    maps = jax.eval_shape(
        functools.partial(model.apply, method="features"), shapes_of(model), pictures(1, 64, 64)
    )
    assert [feature.shape[3] for feature in maps.values()] == [24, 48, 64, 160, 256]


def test_features_only_has_the_backbone_and_no_more() -> None:
    model, whole = nano(features_only=True), nano()
    variables = variables_of(whole)
    backbone = {
        collection: {name: leaf for name, leaf in modules.items() if name in shapes[collection]}
        for shapes in (shapes_of(model),)
        for collection, modules in variables.items()
    }
    assert backbone["params"].keys() == variables["params"].keys() - {"head", "classifier"}
    images = pictures(2, 32, 32)
    maps = jax.jit(model.apply)(backbone, images)
    expected = jax.jit(functools.partial(whole.apply, method="features"))(variables, images)
    assert_trees_close(maps, expected, 1e-6)


def test_without_classes_there_is_no_classifier() -> None:
    model = nano(num_classes=0)
    assert "classifier" not in shapes_of(model)["params"]
    pooled = jax.eval_shape(model.apply, shapes_of(model), pictures(2, 32, 32))
    assert (pooled.shape, pooled.dtype) == ((2, 16), jnp.float32)


def test_symmetric_padding_differs_at_even_sizes_only() -> None:
    same, symmetric = nano(), nano(padding="symmetric")
    variables = variables_of(same)
    # Sizes stay odd: 65, 33, 17.
    odd = pictures(1, 65, 65)
    assert_trees_close(evaluate(symmetric, variables, odd), evaluate(same, variables, odd), 1e-6)
    even = pictures(1, 64, 64)
    assert not jnp.allclose(evaluate(symmetric, variables, even), evaluate(same, variables, even))


def test_class_names_take_no_part_in_what_a_model_is() -> None:
    named = nano(class_names=("cat", "dog", "fish"))
    assert named == nano()
    assert hash(named) == hash(nano())
    assert "cat" not in repr(named)


def test_one_set_of_variables_serves_any_size() -> None:
    model = nano()
    for size in ((32, 32), (33, 47)):
        logits = evaluate(model, variables_of(model), pictures(2, *size))
        assert logits.shape == (2, 3)
        assert jnp.isfinite(logits).all()


@pytest.mark.parametrize("shape", [(2, 31, 64, 3), (2, 64, 31, 3), (2, 64, 64, 1), (64, 64, 3)])
def test_pictures_of_other_shapes_are_errors(shape: tuple[int, ...]) -> None:
    model = tiny()
    with pytest.raises(ValueError, match=r"H and W at least 32, not \("):
        jax.eval_shape(model.apply, shapes_of(model), jnp.zeros(shape))


# Dropout and stochastic depth


def test_training_needs_the_dropout_stream_and_no_other() -> None:
    model = tiny()
    run = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    with pytest.raises(Exception, match="dropout"):
        jax.eval_shape(run, shapes_of(model), pictures(2, 32, 32))
    jax.eval_shape(
        functools.partial(run, rngs={"dropout": KEY}), shapes_of(model), pictures(2, 32, 32)
    )
    noiseless = functools.partial(without_noise(model).apply, train=True, mutable=["batch_stats"])
    jax.eval_shape(noiseless, shapes_of(model), pictures(2, 32, 32))


def test_dropout_zeroes_its_share_and_scales_up_the_rest() -> None:
    rate, count = 0.3, 100_000
    y = np.asarray(dropout(jnp.ones(count), rate, KEY))
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - rate)], rtol=1e-6)
    assert abs((y == 0).mean() - rate) < 5 * (rate * (1 - rate) / count) ** 0.5


def test_stochastic_depth_draws_each_example_at_its_blocks_rate() -> None:
    count = 50_000
    model = nano(stochastic_depth_rate=0.6)
    own: list[None] = [None] * 3
    kept = model.apply({}, count, own, method="_draw_kept", rngs={"dropout": KEY})
    skipped = 1 - np.asarray(kept, np.float64)
    rates = np.array([0, 0.2, 0.4])
    assert (np.abs(skipped.mean(1) - rates) <= 5 * (rates * (1 - rates) / count) ** 0.5).all()
    both, expected = (skipped[1] * skipped[2]).mean(), rates[1] * rates[2]
    assert abs(both - expected) < 5 * (expected / count) ** 0.5, "blocks draw independently"


def test_dropout_acts_before_the_classifier_and_keeps_expected_logits() -> None:
    model, images = nano(stochastic_depth_rate=0.0, dropout_rate=0.5), pictures(2, 32, 32)
    variables = variables_of(model)
    kept, _ = train(without_noise(model), variables, images)
    keys = jax.random.split(KEY, 4096)
    logits = jax.jit(jax.vmap(lambda key: train(model, variables, images, key)[0]))(keys)
    spread = logits.std(0)
    assert (spread > 0).all()
    assert (jnp.abs(logits.mean(0) - kept) < 5 * spread / len(keys) ** 0.5).all()


def test_stochastic_depth_skips_a_block_or_scales_it_up() -> None:
    rate, kept = 0.4, jnp.array([True, False, True, False])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 8)), jnp.float32)
    block = MBConv(3, stride=1, expand=2, outputs=8, se_ratio=0.25, drop_rate=rate)

    @jax.jit
    def branch_of(kept: jax.Array | None) -> jax.Array:
        return block.init_with_output(KEY, x, True, kept)[0] - x

    whole, dropped = branch_of(None), branch_of(kept)
    assert (dropped[~kept] == 0).all()
    np.testing.assert_allclose(dropped[kept], whole[kept] / (1 - rate), rtol=1e-4, atol=1e-5)


def test_stochastic_depth_acts_in_the_model() -> None:
    model, images = nano(dropout_rate=0.0, stochastic_depth_rate=0.9), pictures(4, 32, 32)
    variables = variables_of(model)
    run = jax.jit(functools.partial(train, model))
    first, again, other = (run(variables, images, jax.random.key(seed))[0] for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_evaluation_has_no_noise() -> None:
    model, images = nano(dropout_rate=0.9, stochastic_depth_rate=0.9), pictures(2, 32, 32)
    variables = variables_of(model)
    logits = evaluate(model, variables, images)
    np.testing.assert_array_equal(logits, evaluate(without_noise(model), variables, images))


def test_dropout_rate_may_be_traced_so_that_a_schedule_compiles_once() -> None:
    model, images = nano(stochastic_depth_rate=0.0), pictures(2, 32, 32)
    variables = variables_of(model)
    traces = []

    @jax.jit
    def logits(rate: jax.Array) -> jax.Array:
        traces.append(rate)
        return train(model, variables, images, KEY, rate)[0]

    none, some, more = (logits(jnp.float32(rate)) for rate in (0.0, 0.5, 0.9))
    assert len(traces) == 1
    assert_trees_close(none, train(without_noise(model), variables, images)[0], 1e-5)
    own = train(model.clone(dropout_rate=0.5), variables, images)[0]
    assert_trees_close(some, own, 1e-5)
    assert (some != more).any()


# BatchNorm


def by_hand(x: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalised x, and the averages over groups of mean and biased variance, in float64."""
    parts = np.asarray(x, np.float64).reshape(-1, group, *x.shape[1:])
    means, variances = parts.mean((1, 2, 3)), parts.var((1, 2, 3))
    y = [(part - m) / np.sqrt(v + 1e-3) for part, m, v in zip(parts, means, variances)]
    return np.concatenate(y), means.mean(0), variances.mean(0)


def uneven(*shape: int) -> jax.Array:
    """Examples that differ in mean and spread, so that groups matter."""
    random = np.random.default_rng(0)
    scale, shift = random.uniform(0.5, 2, (2, shape[0], 1, 1, shape[-1]))
    return jnp.asarray(random.normal(size=shape) * scale + shift, jnp.float32)


@pytest.mark.parametrize("group", [1, 2, 4, 8, None])
def test_batchnorm_statistics_span_groups_of_examples(group: int | None) -> None:
    x, momentum = uneven(8, 4, 3, 5), 0.9
    layer = BatchNorm(momentum=momentum, group=group)
    variables = layer.init(KEY, x, train=False)
    y, updates = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    expected, mean, variance = by_hand(np.asarray(x), group or len(x))
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)
    moving = updates["batch_stats"]
    np.testing.assert_allclose(moving["mean"], (1 - momentum) * mean, rtol=1e-5)
    np.testing.assert_allclose(
        moving["var"], momentum + (1 - momentum) * variance, rtol=1e-5, err_msg="starts at 1"
    )


def test_batchnorm_evaluates_with_moving_statistics_scale_and_bias() -> None:
    x = uneven(2, 4, 3, 5)
    scale, bias, mean, variance = np.random.default_rng(1).uniform(0.5, 2, (4, 5))
    variables = {
        "params": {"scale": scale, "bias": bias},
        "batch_stats": {"mean": mean, "var": variance},
    }
    y = np.asarray(BatchNorm().apply(variables, x, train=False))
    expected = (np.asarray(x) - mean) / np.sqrt(variance + 1e-3) * scale + bias
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_model_applies_its_group_in_every_batchnorm() -> None:
    """Groups of 2 are the pairs of the batch, each run by itself."""
    model, images = without_noise(nano()), pictures(4, 32, 32)
    variables = variables_of(model)
    grouped, statistics = train(model.clone(bn_group=2), variables, images)
    halves = [train(model, variables, half) for half in (images[:2], images[2:])]
    assert_trees_close(grouped, jnp.concatenate([logits for logits, _ in halves]), 1e-4)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *(updates for _, updates in halves))
    assert_trees_close(statistics, mean, 1e-5)
    assert (jnp.abs(grouped - train(model, variables, images)[0]) > 1e-4).any()


def test_group_that_does_not_divide_the_batch_is_an_error() -> None:
    model = nano(bn_group=4)
    with pytest.raises(ValueError, match="batch of 6 examples does not divide into groups of 4"):
        jax.eval_shape(functools.partial(train, model), shapes_of(model), pictures(6, 32, 32))


COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def batchnorm_on(mesh: Mesh, group: int | None) -> Callable[[jax.Array], jax.Array]:
    layer = BatchNorm(group=group)
    variables = layer.init(KEY, jnp.zeros((1, 1, 1, 5)), train=False)
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return jax.jit(
        lambda x: layer.apply(variables, x, train=True, mutable=["batch_stats"])[0],
        in_shardings=sharding,
        out_shardings=sharding,
    )


@pytest.mark.parametrize(
    ("group", "expected"), [(1, False), (2, False), (4, False), (8, True), (32, True), (None, True)]
)
def test_batchnorm_communicates_only_where_groups_span_devices(
    mesh: Mesh, group: int | None, expected: bool
) -> None:
    x = uneven(32, 4, 3, 5)  # 4 examples on each device
    run = batchnorm_on(mesh, group)
    program = run.lower(x).compile().as_text()  # type: ignore[attr-defined]
    found = [name for name in COLLECTIVES if name in program]
    assert bool(found) == expected, found
    if group is None:
        assert found == ["all-reduce"]
    np.testing.assert_allclose(run(x), by_hand(np.asarray(x), group or 32)[0], rtol=0, atol=1e-5)


# Transformations


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("group", [2, None])
def test_training_on_8_devices_equals_1(mesh: Mesh, group: int | None) -> None:
    """In float64, so that only a fault in logic can show."""
    model = nano(bn_group=group, dtype="float64", param_dtype="float64")
    variables = variables_of(model)
    images = pictures(16, 32, 32, dtype="float64")

    @jax.jit
    def run(variables: Variables, images: jax.Array) -> Any:
        def objective(params: Any) -> tuple[jax.Array, Any]:
            logits, statistics = train(model, {**variables, "params": params}, images)
            return jnp.square(logits).mean(), (logits, statistics)

        return jax.grad(objective, has_aux=True)(variables["params"])

    one = run(variables, images)
    replicated = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    sharded = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
    eight = run(replicated, sharded)
    assert len(eight[1][0].sharding.device_set) == 8
    assert_trees_close(eight, jax.device_get(one), 1e-9)


@pytest.fixture
def smooth() -> tuple[Callable[[Any], jax.Array], Any, Any]:
    """A loss in float64, the parameters it is taken at, and a direction."""
    model = nano(dtype="float64", param_dtype="float64")
    variables = variables_of(model)
    images = pictures(4, 32, 32, dtype="float64")
    params = variables["params"]
    direction = jax.tree.map(
        lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape, leaf.dtype), params
    )
    return lambda params: loss(params, model, variables, images), params, direction


def central_difference(f: Callable[[Any], Any], at: Any, direction: Any, step: float) -> Any:
    ahead = f(jax.tree.map(lambda a, d: a + step * d, at, direction))
    behind = f(jax.tree.map(lambda a, d: a - step * d, at, direction))
    return jax.tree.map(lambda a, b: (a - b) / (2 * step), ahead, behind)


@pytest.mark.usefixtures("x64")
def test_forward_mode_equals_finite_differences(smooth: Any) -> None:
    f, params, direction = smooth
    _, slope = jax.jit(lambda p, d: jax.jvp(f, (p,), (d,)))(params, direction)
    expected = central_difference(jax.jit(f), params, direction, 1e-6)
    assert float(slope) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.usefixtures("x64")
def test_hessian_vector_product_equals_finite_differences(smooth: Any) -> None:
    f, params, direction = smooth
    _, product = jax.jit(lambda p, d: jax.jvp(jax.grad(f), (p,), (d,)))(params, direction)
    expected = central_difference(jax.jit(jax.grad(f)), params, direction, 1e-6)
    assert_trees_close(product, expected, 1e-6)


def test_vmap_over_models_and_pictures_equals_a_loop() -> None:
    model = nano()
    models = [variables_of(model, seed) for seed in (1, 2)]
    images = pictures(2, 3, 33, 35)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
    together = jax.jit(jax.vmap(model.apply))(stacked, images)
    for index, variables in enumerate(models):
        assert_trees_close(together[index], evaluate(model, variables, images[index]), 1e-5)


def test_checkpointed_function_has_the_same_gradients() -> None:
    model, images = nano(), pictures(4, 32, 32)
    variables = variables_of(model)
    arguments = (variables["params"], model, variables, images)
    again = jax.jit(jax.grad(jax.checkpoint(loss, static_argnums=1)), static_argnums=1)
    assert_trees_close(again(*arguments), gradient(*arguments), 1e-5)


def test_remat_module_has_the_same_gradients() -> None:
    model, images = nano(), pictures(4, 32, 32)
    variables = variables_of(model)
    fields = ("stages", "stem_features", "head_features", "num_classes", "dropout_rate")
    # Of `__call__(self, images, train)` the last is a Python bool.
    remat = nn.remat(EfficientNet, static_argnums=(2,))(**{f: getattr(model, f) for f in fields})

    def remat_loss(params: Any) -> jax.Array:
        logits, _ = remat.apply(
            {**variables, "params": params},
            images,
            True,
            rngs={"dropout": KEY},
            mutable=["batch_stats"],
        )
        return jnp.square(logits - 1).mean()

    again = jax.jit(jax.grad(remat_loss))(variables["params"])
    assert_trees_close(again, gradient(variables["params"], model, variables, images), 1e-5)


def test_exports_with_symbolic_batch_and_sizes() -> None:
    pytest.importorskip("flatbuffers", reason="jax.export serializes with flatbuffers")
    model = nano()
    shape = jax.export.symbolic_shape("b, h, w", constraints=["h >= 32", "w >= 32"])
    exported = jax.export.export(
        jax.jit(lambda variables, images: model.apply(variables, images)),
        platforms=("cpu", "cuda", "tpu"),
    )(shapes_of(model), jax.ShapeDtypeStruct((*shape, 3), jnp.float32))
    images = pictures(2, 45, 32)
    logits = jax.export.deserialize(exported.serialize()).call(variables_of(model), images)
    assert_trees_close(logits, evaluate(model, variables_of(model), images), 1e-5)


def test_works_as_an_nnx_module() -> None:
    model, images = nano(), pictures(2, 32, 32)

    @nnx.jit
    def make(images: jax.Array) -> nnx.Module:
        return nnx.bridge.ToNNX(model, rngs=nnx.Rngs(params=0, dropout=1)).lazy_init(images)

    @nnx.jit
    def step(module: nnx.Module, images: jax.Array) -> jax.Array:
        return module(images, train=True, mutable=["batch_stats"])

    def variables_in(module: nnx.Module) -> Variables:
        kinds = {"params": nnx.Param, "batch_stats": nnx.BatchStat}
        return {name: nnx.to_pure_dict(nnx.state(module, kind)) for name, kind in kinds.items()}

    module = make(images)
    variables = variables_in(module)
    assert dict(leaves(variables)).keys() == dict(leaves(variables_of(model))).keys()
    logits = nnx.jit(lambda module, images: module(images))(module, images)
    assert_trees_close(logits, evaluate(model, variables, images), 1e-5)
    step(module, images)
    moved, before = variables_in(module)["batch_stats"], variables["batch_stats"]
    assert (moved["stem"]["bn"]["mean"] != before["stem"]["bn"]["mean"]).any()


def test_squeeze_excite_gradients_keep_their_digits_in_bfloat16() -> None:
    x = jnp.abs(jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 8)), jnp.bfloat16))
    layers = {dtype: SqueezeExcite(4, dtype=dtype) for dtype in (jnp.float32, jnp.bfloat16)}
    params = layers[jnp.float32].init(KEY, x)

    def total(params: Any, layer: SqueezeExcite) -> jax.Array:
        return jnp.asarray(layer.apply(params, x), jnp.float32).sum()

    exact, rounded = (
        jax.jit(jax.grad(total), static_argnums=1)(params, layer) for layer in layers.values()
    )
    assert_trees_close(rounded, exact, 0.02)


# Imports


def test_weights_load_packages_only_when_they_need_them() -> None:
    late = ("grain", "orbax", "tensorflow_datasets", "keras", "torch", "h5py", "huggingface_hub")
    statement = "from effnetv2_jax import load_pretrained"
    program = f"import sys; {statement}; print(*({set(late)} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).split() == []


HEAVY = ("jax", "flax", "grain", "tensorflow", "tensorflow_datasets", "orbax", "optax", "cv2")


@pytest.mark.parametrize(
    "statement",
    [
        "import effnetv2_jax",
        "from effnetv2_jax import list_models; list_models()",
        "from effnetv2_jax import StageSpec",
        "import effnetv2_jax.progressive",
        "import effnetv2_jax.config.experiment",
        "import effnetv2_jax.weights.run_config",
        "from effnetv2_jax.models.libraries import is_tag; assert is_tag('in1k')",
    ],
)
def test_light_parts_load_no_heavy_package(statement: str) -> None:
    program = f"import sys; {statement}; print(*({set(HEAVY)} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).split() == []


def test_models_load_no_data_or_training_code() -> None:
    call = "effnetv2_jax.create_model('efficientnetv2-b0')"
    program = f"import sys, effnetv2_jax; {call}; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert "effnetv2_jax.models.efficientnet.model" in loaded
    others = ("effnetv2_jax.data", "effnetv2_jax.train", "effnetv2_jax.outputs", "tensorflow")
    assert not [name for name in loaded if name.startswith((*others, "grain", "optax"))]
