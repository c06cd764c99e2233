"""The two blocks of EfficientNetV2 (paper, figure 2), and a variant of timm's."""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from effnetv2_jax.models.layers import (
    Activation,
    BatchNorm,
    ConvNorm,
    Rate,
    SqueezeExcite,
    stochastic_depth,
)
from effnetv2_jax.ops.conv import Padding


class Block(nn.Module):
    """What both blocks have.

    They are called on `[B, H, W, C]`, with `train` for batch statistics, with bool `[B]` of the
    examples that stochastic depth keeps (None keeps all), and with the rate it has, where that is
    traced and takes the place of `drop_rate`.
    """

    kernel_size: int
    stride: int
    expand: int
    outputs: int
    se_ratio: float = 0.0
    drop_rate: float = 0.0
    """Stochastic depth's probability that an example skips the block."""
    activation: Activation = nn.silu
    padding: Padding = "same"
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def conv(self, features: int, name: str, **options: Any) -> ConvNorm:
        return ConvNorm(
            features=features,
            padding=self.padding,
            norm=self.norm,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
            **{"activation": self.activation} | options,
        )

    def squeeze_excite(self, y: jax.Array, inputs: int) -> jax.Array:
        """Squeeze-and-excitation, whose width is a share of the block's input channels."""
        if not self.se_ratio:
            return y
        hidden = max(1, int(inputs * self.se_ratio))
        gates = SqueezeExcite(hidden, self.activation, self.dtype, self.param_dtype, name="se")
        return gates(y)

    def residual(
        self, y: jax.Array, x: jax.Array, kept: jax.Array | None, drop_rate: Rate | None
    ) -> jax.Array:
        """Adds the block's input where shapes allow it, to `y` or to what stochastic depth left."""
        if self.stride != 1 or x.shape[-1] != self.outputs:
            return y
        if kept is None:
            return x + y
        return x + stochastic_depth(y, kept, self.drop_rate if drop_rate is None else drop_rate)


class MBConv(Block):
    """1x1 expand, depthwise, squeeze-and-excitation, 1x1 project."""

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool,
        kept: jax.Array | None = None,
        drop_rate: Rate | None = None,
    ) -> jax.Array:
        inputs = x.shape[-1]
        hidden = inputs * self.expand
        spatial = {"kernel_size": self.kernel_size, "stride": self.stride}
        y = x
        if self.expand != 1:
            y = self.conv(hidden, "expand")(y, train=train)
        y = self.conv(hidden, "depthwise", depthwise=True, **spatial)(y, train=train)
        y = self.squeeze_excite(y, inputs)
        y = self.conv(self.outputs, "project", activation=None)(y, train=train)
        return self.residual(y, x, kept, drop_rate)


class FusedMBConv(Block):
    """MBConv with one dense kernel in place of the expansion and the depthwise convolution.

    Without expansion that one convolution is the whole block, and keeps its activation.
    """

    always_projects: ClassVar[bool] = False
    """Whether the 1x1 convolution is there without expansion too."""

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool,
        kept: jax.Array | None = None,
        drop_rate: Rate | None = None,
    ) -> jax.Array:
        hidden = x.shape[-1] * self.expand
        spatial = {"kernel_size": self.kernel_size, "stride": self.stride}
        if self.expand == 1 and not self.always_projects:
            y = self.conv(self.outputs, "project", **spatial)(x, train=train)
        else:
            y = self.conv(hidden, "expand", **spatial)(x, train=train)
            y = self.squeeze_excite(y, x.shape[-1])
            y = self.conv(self.outputs, "project", activation=None)(y, train=train)
        return self.residual(y, x, kept, drop_rate)


class EdgeResidual(FusedMBConv):
    """FusedMBConv with both of its convolutions also without expansion."""

    always_projects: ClassVar[bool] = True


BLOCKS: dict[str, type[Block]] = {"mbconv": MBConv, "fused": FusedMBConv, "edge": EdgeResidual}
