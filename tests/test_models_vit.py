"""ViT and DeiT: published counts, shapes, positions of any size, and what decays."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_weights import random_variables

from effnetv2_jax import create_model, list_models
from effnetv2_jax.models.complexity import complexity
from effnetv2_jax.models.layers import draw_kept
from effnetv2_jax.models.shapes import variable_shapes
from effnetv2_jax.models.vit import FAMILY, ViTConfig
from effnetv2_jax.models.vit.model import Block, resampled
from effnetv2_jax.models.vit.variants import VARIANTS
from effnetv2_jax.ops.attention import attention

pytestmark = pytest.mark.usefixtures("quick_compilation")

TI, S = (5_717_416, 1_253_683_200, 5_974_636), (22_050_664, 4_598_882_304, 11_948_272)
B = (86_567_656, 17_563_828_224, 23_895_544)
B_384 = (86_859_496, 55_484_350_464, 101_561_464)
GOLDEN = {
    # Parameters, multiply-accumulates and activations at the size of evaluation.
    "vit-ti16": TI,
    "vit-s16": S,
    "vit-b16": B,
    "vit-l16": (304_326_632, 61_554_712_576, 63_519_080),
    "vit-ti16-384": (5_790_376, 4_682_219_520, 25_391_116),
    "vit-s16-384": (22_196_584, 15_490_351_104, 50_781_232),
    "vit-b16-384": B_384,
    "vit-l16-384": (304_715_752, 191_066_300_416, 270_239_080),
    "deit-ti": TI,
    "deit-s": S,
    "deit-b": B,
    "deit-b-384": B_384,
}
FAST = ("deit-b-384",)


def thin(**fields: Any) -> Any:
    """Two blocks of few channels, whose positions are for 64 pixels."""
    small = {"num_classes": 3, "width": 16, "heads": 2, "depth": 2, "grid": 4}
    return create_model("vit-s16", **small | fields)


def pictures(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(*shape, 3)), jnp.float32)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in GOLDEN]
)
def test_published_counts(name: str) -> None:
    model = create_model(name)
    size = model.preprocessing.image_size
    counts = complexity(model, height=size, width=size)
    assert (counts.trainable, counts.macs, counts.activations) == GOLDEN[name]
    assert counts.total == counts.trainable


def test_every_variant_is_counted_and_listed() -> None:
    assert GOLDEN.keys() == VARIANTS.keys()
    assert [*list_models("vit-*"), *list_models("deit-*")] == list(VARIANTS)


def test_logits_and_features_of_any_size() -> None:
    model = thin()
    variables, images = random_variables(model), pictures(2, 45, 64)
    logits = jax.jit(model.apply)(variables, images)
    assert (logits.shape, logits.dtype) == ((2, 3), jnp.float32)
    # What is missing of the last patches is 0.
    filled = jnp.pad(images, ((0, 0), (0, 3), (0, 0), (0, 0)))
    np.testing.assert_array_equal(logits, jax.jit(model.apply)(variables, filled))
    maps = jax.eval_shape(model.clone(features_only=True).apply, variables, images)
    assert {reduction: x.shape for reduction, x in maps.items()} == {"reduction_4": (2, 3, 4, 16)}
    pooled = model.clone(num_classes=0)
    assert jax.eval_shape(pooled.apply, variables, images).shape == (2, 16)
    with pytest.raises(ValueError, match="H and W at least 16"):
        jax.eval_shape(model.apply, variables, images[:, :15])


def test_positions_stay_as_they_are_at_their_own_size() -> None:
    positions = jnp.asarray(np.random.default_rng(0).normal(size=(1, 17, 2)), jnp.float32)
    assert resampled(positions, 4, (4, 4)) is positions
    larger = resampled(positions, 4, (6, 8))
    assert larger.shape == (1, 49, 2)
    np.testing.assert_array_equal(larger[:, 0], positions[:, 0])
    # Weights sum to 1, at the edges as well.
    np.testing.assert_allclose(resampled(jnp.ones((1, 17, 1)), 4, (7, 3)), 1, rtol=1e-6)


def test_attention_is_jaxs() -> None:
    random = np.random.default_rng(0)
    query, key, value = (
        jnp.asarray(random.normal(size=(2, length, 3, 4)), jnp.float32) for length in (5, 7, 7)
    )
    expected = jax.nn.dot_product_attention(query, key, value)
    np.testing.assert_allclose(attention(query, key, value), expected, rtol=1e-5, atol=1e-6)
    halves = attention(*(x.astype(jnp.bfloat16) for x in (query, key, value)))
    assert halves.dtype == jnp.bfloat16
    np.testing.assert_allclose(halves.astype(jnp.float32), expected, atol=0.03)


def test_kernels_alone_decay() -> None:
    paths = [path[1:] for path in variable_shapes(thin())]
    kept = {path[-1] for path in paths if not FAMILY.decays(path)}
    decaying = {path[-1] for path in paths if FAMILY.decays(path)}
    assert (kept, decaying) == ({"bias", "scale", "class_token", "positions"}, {"kernel"})


class Stream:
    """The random stream of a module."""

    def make_rng(self, name: str) -> jax.Array:
        assert name == "dropout"
        return jax.random.key(0)


def test_stochastic_depth_rises_from_block_to_block() -> None:
    kept, rates = zip(*draw_kept(Stream(), 4000, 5, 0.4))  # type: ignore[arg-type]
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose([1 - each.mean() for each in kept], rates, atol=0.03)
    assert list(draw_kept(Stream(), 4, 2, 0.0)) == [(None, 0.0)] * 2  # type: ignore[arg-type]
    (_, rate), *_ = draw_kept(Stream(), 4, 1, 0.5)  # type: ignore[arg-type]
    assert rate == 0


def test_a_block_leaves_as_they_are_what_stochastic_depth_skips_in_both_branches() -> None:
    block = Block(thin().config)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 16)), jnp.float32)
    variables = {"params": random_variables(thin())["params"]["blocks_0"]}
    kept = jnp.array([False, True, False, True, False, False, True, True])
    whole, part = jax.jit(
        lambda x: (block.apply(variables, x), block.apply(variables, x, kept, 0.5))
    )(x)
    np.testing.assert_array_equal(part[0], x[0])
    assert [bool((part[i] == x[i]).any()) for i in (1, 2, 3)] == [False] * 3
    # What is kept is scaled up; the second branch sees what the first one left.
    assert not np.allclose(part[1:], whole[1:], atol=0.1)


def test_bfloat16_keeps_parameters_and_logits_in_float32() -> None:
    model = thin(dtype="bfloat16", dropout_rate=0.5)
    images = pictures(4, 32, 32)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    logits = jax.jit(model.apply)(variables, images)
    assert logits.dtype == jnp.float32
    assert jnp.isfinite(logits).all()


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"heads": 5}, "width is 384, which 5 heads cannot share out"),
        ({"depth": 0}, "depth must be above 0, not 0"),
        ({"norm_epsilon": 0.0}, "norm_epsilon must be above 0"),
        ({"stochastic_depth_rate": 1.0}, r"stochastic_depth_rate must be in \[0, 1\)"),
    ],
)
def test_what_makes_no_sense_is_named(fields: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=f"vit-s16: {fault}"):
        create_model("vit-s16", **fields)


def test_a_config_says_what_follows_from_its_name() -> None:
    whole = ViTConfig(name="vit-l16-384", depth=3).resolved()
    assert (whole.width, whole.heads, whole.depth, whole.patch, whole.grid) == (1024, 16, 3, 16, 24)
