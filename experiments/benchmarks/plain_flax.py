"""The same network out of Flax's own layers, for comparison.

    with plain_flax():
        logits = jax.jit(create_model("efficientnetv2-s").apply)(variables, images)

Inside the context, convolutions are `nn.Conv` and normalisation is `nn.BatchNorm`; variables have
the names and shapes they have outside. A network is built when it is traced, so it has to be traced
inside; what was traced before keeps what it has.
"""

import contextlib
from collections.abc import Iterator
from unittest import mock

import flax.linen as nn
import jax

from effnetv2_jax.models import efficientnet, layers


@contextlib.contextmanager
def plain_flax() -> Iterator[None]:
    """Builds every network that is traced inside from Flax's own layers."""
    with (
        mock.patch.object(layers, "Conv", PlainConv),
        mock.patch.object(layers, "BatchNorm", PlainBatchNorm),
        mock.patch.object(efficientnet, "BatchNorm", PlainBatchNorm),
    ):
        yield


class PlainConv(layers.Conv):
    """`layers.Conv` as `nn.Conv`."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        around = ((self.kernel_size - 1) // 2, self.kernel_size // 2)
        conv = nn.Conv(
            self.features,
            (self.kernel_size, self.kernel_size),
            (self.stride, self.stride),
            padding="SAME" if self.padding == "same" else (around, around),
            feature_group_count=x.shape[-1] if self.depthwise else 1,
            use_bias=self.use_bias,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=layers.depthwise_normal if self.depthwise else layers.fan_out_normal,
        )
        nn.share_scope(self, conv)
        return conv(x)


class PlainBatchNorm(layers.BatchNorm):
    """`layers.BatchNorm` as `nn.BatchNorm`, which has no groups."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.group is not None:
            raise ValueError("nn.BatchNorm has no groups of examples")
        norm = nn.BatchNorm(
            use_running_average=self.frozen or not train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        nn.share_scope(self, norm)
        x = norm(x)
        return x if self.activation is None else self.activation(x)
