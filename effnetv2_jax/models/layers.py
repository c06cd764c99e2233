"""The layers that networks are made of."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from effnetv2_jax.ops.batch_norm import group_moments, split_groups
from effnetv2_jax.ops.conv import Padding, conv2d
from effnetv2_jax.ops.scaled_silu import scaled_silu

Dtype = Any
Rate = float | jax.Array
Activation = Callable[[jax.Array], jax.Array]
Initializer = Callable[..., jax.Array]
"""From a key, a shape and a dtype."""

ACTIVATIONS: dict[str, Activation] = {
    "silu": nn.silu,
    "relu6": nn.relu6,
    "relu": nn.relu,
    "gelu": nn.gelu,
}


def check_images(images: jax.Array, least: int, channels: int = 3) -> None:
    """What every family's model asks of its images first, while it is traced.

    Args:
      images: to be float `[B, H, W, channels]`.
      least: of H and W.
      channels: the config's `input_channels`, where the family has a use for others than 3.

    Raises:
      TypeError: they are integers, such as pixels that were never normalised.
      ValueError: they have another shape.
    """
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"images are {images.dtype}, and the model takes normalised ones: pass "
            "preprocess(images, like=model), or (images - mean) / std of model.preprocessing"
        )
    # Sizes are compared one by one, because symbolic ones have no smallest.
    shape = images.shape
    if len(shape) != 4 or shape[-1] != channels or any(size < least for size in shape[1:3]):
        raise ValueError(
            f"images must be [B, H, W, {channels}] with H and W at least {least}, not {shape}"
        )


def fan_out_normal(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
    """N(0, 2 / fan-out), untruncated, for a dense kernel `[kh, kw, C, D]`."""
    height, width, _, outputs = shape
    return _normal(key, shape, dtype) * (2 / (height * width * outputs)) ** 0.5


def depthwise_normal(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
    """N(0, 2 / (kh * kw)) for a depthwise kernel `[kh, kw, 1, C]`, whose fan-out is one channel."""
    height, width, _, _ = shape
    return _normal(key, shape, dtype) * (2 / (height * width)) ** 0.5


def classifier_uniform(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
    """Uniform within 1 / sqrt(number of classes) of 0, for a kernel `[C, K]`."""
    limit = shape[-1] ** -0.5
    flat = jax.random.uniform(key, (math.prod(shape),), dtype, -limit, limit)
    return flat.reshape(shape)


def normal_of(deviation: float) -> Initializer:
    """N(0, deviation^2), untruncated, for arrays of any shape."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
        return _normal(key, shape, dtype) * deviation

    return draw


def _normal(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
    # The same numbers as drawn in shape, but XLA compiles the random bits of a vector in a quarter
    # of the time, and a network draws hundreds of them.
    return jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)


class Conv(nn.Module):
    """Convolution of `[B, H, W, C]` that keeps H and W, but for its stride."""

    features: int
    kernel_size: int = 1
    stride: int = 1
    depthwise: bool = False
    padding: Padding = "same"
    use_bias: bool = False
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs = x.shape[-1]
        shape = (self.kernel_size, self.kernel_size, 1 if self.depthwise else inputs, self.features)
        init = depthwise_normal if self.depthwise else fan_out_normal
        kernel = self.param("kernel", init, shape, self.param_dtype)
        groups = inputs if self.depthwise else 1
        wide = jnp.promote_types(self.dtype, self.param_dtype)
        x = conv2d(
            jnp.asarray(x, self.dtype),
            jnp.asarray(kernel, wide),
            stride=self.stride,
            groups=groups,
            padding=self.padding,
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
            # A wide sum of both, since the gradient of the bias is a sum of its type.
            x = (x + jnp.asarray(bias, wide)).astype(self.dtype)
        return x


class BatchNorm(nn.Module):
    """Batch normalisation whose training statistics span fixed groups of examples, and activation.

    Moving statistics are averages over the groups: `momentum * old + (1 - momentum) * new`, with
    the biased variance.
    """

    momentum: float = 0.99
    epsilon: float = 1e-3
    group: int | None = None
    frozen: bool = False
    """Normalises with the moving statistics in training too, and leaves them as they are."""
    activation: Activation | None = None
    scale_init: Initializer = nn.initializers.ones
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        shape = (x.shape[-1],)
        scale = self.param("scale", self.scale_init, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        moving_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, self.param_dtype)
        moving_var = self.variable("batch_stats", "var", jnp.ones, shape, self.param_dtype)
        if self.frozen or not train:
            return self._normalize(x, moving_mean.value, moving_var.value, scale, bias)
        mean, variance = group_moments(x, self.group)
        if not self.is_initializing():
            for moving, new in ((moving_mean, mean), (moving_var, variance)):
                new = new[0, 0, 0, 0] if len(new) == 1 else new.mean((0, 1, 2, 3))
                moving.value = self.momentum * moving.value + (1 - self.momentum) * new
        grouped = split_groups(x, self.group)
        return self._normalize(grouped, mean, variance, scale, bias).reshape(x.shape)

    def _normalize(
        self, x: jax.Array, mean: jax.Array, variance: jax.Array, scale: jax.Array, bias: jax.Array
    ) -> jax.Array:
        # As one product and one sum, whose derivatives need x and no copy of it less its mean.
        factor = scale * jax.lax.rsqrt(variance + self.epsilon)
        shift = bias - mean * factor
        if self.activation is nn.silu:
            return scaled_silu(x, factor, shift, dtype=self.dtype)
        x = (x * factor + shift).astype(self.dtype)
        return x if self.activation is None else self.activation(x)


class ConvNorm(nn.Module):
    """Convolution, batch normalisation and, unless `activation` is None, an activation."""

    features: int
    kernel_size: int = 1
    stride: int = 1
    depthwise: bool = False
    padding: Padding = "same"
    activation: Activation | None = nn.silu
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = Conv(
            features=self.features,
            kernel_size=self.kernel_size,
            stride=self.stride,
            depthwise=self.depthwise,
            padding=self.padding,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="conv",
        )(x)
        numerics = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return self.norm(activation=self.activation, name="bn", **numerics)(x, train=train)


class SqueezeExcite(nn.Module):
    """Scales channels by gates computed from their means over the image."""

    hidden: int
    activation: Activation = nn.silu
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def conv(features: int, name: str) -> Conv:
            return Conv(
                features=features,
                use_bias=True,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name=name,
            )

        gates = x.mean((1, 2), keepdims=True)
        gates = self.activation(conv(self.hidden, "reduce")(gates))
        gates = conv(x.shape[-1], "expand")(gates)
        # A bfloat16 product would have its gradient summed over the pixels in bfloat16.
        gates = nn.sigmoid(gates.astype(jnp.promote_types(self.dtype, jnp.float32)))
        return (x * gates).astype(self.dtype)


class Classifier(nn.Module):
    """Dense layer with float32 accumulation and output."""

    num_classes: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    kernel_init: Initializer = classifier_uniform

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.num_classes)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:], self.param_dtype)
        logits = jnp.matmul(
            jnp.asarray(x, self.dtype),
            jnp.asarray(kernel, self.dtype),
            preferred_element_type=jnp.promote_types(self.dtype, jnp.float32),
        )
        return logits + bias


def dropout(x: jax.Array, rate: Rate, key: jax.Array) -> jax.Array:
    """Zeroes elements with probability `rate`, which may be traced, and scales up the rest."""
    kept = jax.random.bernoulli(key, 1 - rate, (x.size,)).reshape(x.shape)
    return jnp.where(kept, x / jnp.asarray(1 - rate, x.dtype), jnp.zeros_like(x))


def stochastic_depth(x: jax.Array, kept: jax.Array, rate: Rate) -> jax.Array:
    """Zeroes the examples of `[B, ...]` that are not `kept`, and scales up the rest.

    Args:
      kept: bool `[B]`, True with probability 1 - rate.
    """
    kept = kept.reshape(-1, *(1,) * (x.ndim - 1))
    return jnp.where(kept, x / jnp.asarray(1 - rate, x.dtype), jnp.zeros_like(x))


def draw_kept(
    module: nn.Module, count: int, blocks: int, rate: Rate
) -> Iterator[tuple[jax.Array | None, Rate]]:
    """Yields for every block what stochastic depth keeps, bool `[count]`, and the block's rate.

    The rate rises linearly from 0 at the first block to `rate` at the last. The random stream
    `dropout` is drawn from, unless the rate is a number and 0: then None keeps all.
    """
    if isinstance(rate, float | int) and rate == 0:
        yield from [(None, 0.0)] * blocks
        return
    # One draw serves all blocks, since random bits are slow to compile.
    draws = jax.random.uniform(module.make_rng("dropout"), (blocks * count,))
    for index, draw in enumerate(draws.reshape(blocks, count)):
        own = rate * (index / max(1, blocks - 1))
        yield draw >= own, own


def pixel_mean(x: jax.Array) -> jax.Array:
    """Means over the pixels of `[B, H, W, C]`: `[B, C]`, float32 or wider."""
    # Over many of them they need more digits than bfloat16 has.
    return x.mean((1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))


def last_of_each_resolution(maps: Iterable[jax.Array]) -> dict[str, jax.Array]:
    """Of feature maps `[B, H, W, C]` in order, each at most half as large as the picture.

    Returns:
      `{"reduction_1": ..., "reduction_2": ...}`, the last of each size.
    """
    last: list[jax.Array] = []
    for x in maps:
        if last and last[-1].shape[1:3] == x.shape[1:3]:
            last.pop()
        last.append(x)
    return {f"reduction_{index}": x for index, x in enumerate(last, start=1)}
