"""Counting by the jaxpr: published figures of networks of other kinds, and JAX's control flow."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from effnetv2_jax import create_model
from effnetv2_jax.models.complexity import complexity
from effnetv2_jax.ops.conv import conv2d

Function = Callable[[jax.Array, jax.Array], jax.Array]


class ViT(nn.Module):
    """ViT-S/16: no collection but `params`, whose shapes depend on the picture's size."""

    width: int = 384
    depth: int = 12
    heads: int = 6

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Conv(self.width, (16, 16), strides=16, padding="VALID")(images)
        x = x.reshape(len(x), -1, self.width)
        token = self.param("token", nn.initializers.zeros, (1, 1, self.width))
        x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, self.width)), x], axis=1)
        x += self.param("positions", nn.initializers.zeros, (1, *x.shape[1:]))
        for _ in range(self.depth):
            qkv = nn.Dense(3 * self.width)(nn.LayerNorm()(x))
            qkv = qkv.reshape(*x.shape[:2], 3, self.heads, -1)
            mixed = jax.nn.dot_product_attention(*jnp.moveaxis(qkv, 2, 0))
            x += nn.Dense(self.width)(mixed.reshape(x.shape))
            hidden = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
            x += nn.Dense(self.width)(hidden)
        return nn.Dense(1000)(nn.LayerNorm()(x)[:, 0])


class ResNet50(nn.Module):
    """Strides in the 3x3 convolutions, as torchvision has them."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        def conv(x: jax.Array, features: int, size: int, stride: int = 1) -> jax.Array:
            x = nn.Conv(features, (size, size), strides=stride, use_bias=False)(x)
            return nn.BatchNorm(use_running_average=not train)(x)

        x = nn.relu(conv(images, 64, 7, 2))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
        for stage, repeats in enumerate((3, 4, 6, 3)):
            for repeat in range(repeats):
                stride = 2 if stage and not repeat else 1
                shortcut = x if repeat else conv(x, 256 << stage, 1, stride)
                x = nn.relu(conv(x, 64 << stage, 1))
                x = nn.relu(conv(x, 64 << stage, 3, stride))
                x = nn.relu(conv(x, 256 << stage, 1) + shortcut)
        return nn.Dense(1000)(x.mean((1, 2)))


@pytest.mark.parametrize(
    ("model", "size", "parameters", "gmacs", "activations"),
    [
        (ViT(), 224, 22.05, 4.60, 11.95),
        (ResNet50(), 224, 25.56, 4.09, 11.11),
        (create_model("efficientnet-b0"), 224, 5.29, 0.39, 6.75),
        (create_model("efficientnetv2-s"), 300, 21.46, 5.31, 22.73),
    ],
    ids=["vit-s", "resnet50", "v1-b0", "v2-s"],
)
def test_published_counts(
    model: nn.Module, size: int, parameters: float, gmacs: float, activations: float
) -> None:
    counts = complexity(model, height=size, width=size)
    assert counts.trainable / 1e6 == pytest.approx(parameters, abs=0.005)
    assert counts.macs / 1e9 == pytest.approx(gmacs, abs=0.005)
    assert counts.activations / 1e6 == pytest.approx(activations, abs=0.005)


def test_statistics_count_in_total_where_there_are_any() -> None:
    resnet = complexity(ResNet50(), height=32, width=32)
    assert resnet.total == resnet.trainable + 2 * 26_560  # channels of all normalisations
    vit = complexity(ViT(depth=1), height=32, width=32)
    assert vit.total == vit.trainable


class Applies(nn.Module):
    """A function of the picture and of one kernel."""

    function: Function
    kernel: tuple[int, ...] = (3, 3)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        # Its initialisation has products of its own.
        kernel = self.param("kernel", nn.initializers.orthogonal(), self.kernel)
        return self.function(images, kernel)


@jax.custom_vjp
def with_own_gradient(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel


with_own_gradient.defvjp(lambda x, kernel: (x @ kernel, None), lambda _, dy: (dy, dy))


@jax.custom_jvp
def with_own_derivative(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel


with_own_derivative.defjvp(lambda primals, tangents: (both(*primals), both(*tangents)))


def both(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel @ kernel


def repeated(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.scan(lambda x, _: (both(x, kernel), None), x, length=5)[0]


def either(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.cond(x.sum() > 0, both, jnp.matmul, x, kernel)


def by_platform(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.platform_dependent(x, kernel, cpu=jnp.matmul, default=jnp.matmul)


@pytest.mark.parametrize(
    ("function", "products"),
    [
        (jnp.matmul, 1),
        (lambda x, kernel: x + kernel.sum(), 0),
        (jax.jit(both), 2),
        (jax.checkpoint(both), 2),
        (with_own_gradient, 1),
        (with_own_derivative, 1),
        (repeated, 10),
        (lambda x, kernel: lax.fori_loop(0, 3, lambda _, x: x @ kernel, x), 3),
        (either, 2),
        (by_platform, 1),
    ],
)
def test_products_inside_of_other_operations(function: Function, products: int) -> None:
    counts = complexity(Applies(function), height=4, width=8)
    assert counts.trainable == 9
    assert (counts.macs, counts.activations) == (products * 32 * 3 * 3, products * 32 * 3)


def test_a_loop_of_unknown_length_is_an_error() -> None:
    def until_small(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.while_loop(lambda x: x.sum() > 1, lambda x: x @ kernel, x)

    with pytest.raises(ValueError, match="inside of `while`"):
        complexity(Applies(until_small), height=4, width=8)


def depthwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return conv2d(x, kernel, stride=2, groups=3)


def transposed(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_transpose(x, kernel, (2, 2), "SAME")


@pytest.mark.parametrize(
    ("function", "kernel", "macs", "activations"),
    [
        (conv2d, (3, 3, 3, 5), 32 * 9 * 3 * 5, 32 * 5),
        (depthwise, (3, 3, 1, 6), 8 * 9 * 6, 8 * 6),
        (jax.jit(depthwise), (3, 3, 1, 6), 8 * 9 * 6, 8 * 6),
        (transposed, (3, 3, 3, 5), 32 * 9 * 3 * 5, 128 * 5),
    ],
)
def test_convolutions(
    function: Function,
    kernel: tuple[int, ...],
    macs: int,
    activations: int,
) -> None:
    counts = complexity(Applies(function, kernel), height=4, width=8)
    assert (counts.macs, counts.activations) == (macs, activations)
