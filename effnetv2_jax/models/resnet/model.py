"""ResNet: a stem, stages of bottleneck blocks, and a classifier."""

import functools
from typing import Any

import flax.linen as nn
import jax

from effnetv2_jax.models.image_model import ImageModel, dtypes_of
from effnetv2_jax.models.layers import (
    BatchNorm,
    Classifier,
    ConvNorm,
    Rate,
    SqueezeExcite,
    check_images,
    draw_kept,
    last_of_each_resolution,
    pixel_mean,
    stochastic_depth,
)
from effnetv2_jax.models.resnet.config import ResNetConfig
from effnetv2_jax.models.resnet.variants import get_variant
from effnetv2_jax.ops.pool import average_pool, max_pool


def _conv(config: ResNetConfig, features: int, kernel_size: int = 1, **options: Any) -> ConvNorm:
    """A convolution of a network, its BatchNorm and its ReLU."""
    norm = functools.partial(
        BatchNorm,
        momentum=config.bn_momentum,
        epsilon=config.bn_epsilon,
        group=config.bn_group,
        frozen=config.bn_frozen,
        scale_init=options.pop("scale_init", nn.initializers.ones),
    )
    return ConvNorm(
        features,
        kernel_size,
        padding="symmetric",
        norm=norm,
        **{"activation": nn.relu, **dtypes_of(config)} | options,
    )


class Bottleneck(nn.Module):
    """1x1 to fewer channels, 3x3, 1x1 to four times as many, and the shortcut around them.

    Called on `[B, H, W, C]` with `train` for batch statistics, with bool `[B]` of the examples that
    stochastic depth keeps (None keeps all), and with its rate. Begins as its shortcut alone.
    """

    config: ResNetConfig
    features: int
    """Of the 3x3 convolution."""
    stride: int

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, kept: jax.Array | None = None, drop_rate: Rate = 0.0
    ) -> jax.Array:
        conv, whole = functools.partial(_conv, self.config), self.config.whole
        outputs = 4 * self.features
        y = conv(self.features, name="reduce")(x, train=train)
        y = conv(self.features, 3, stride=self.stride, name="spatial")(y, train=train)
        zeros = nn.initializers.zeros
        y = conv(outputs, activation=None, scale_init=zeros, name="expand")(y, train=train)
        if whole.se_ratio:
            hidden = max(1, int(outputs * whole.se_ratio))
            y = SqueezeExcite(hidden, nn.relu, **dtypes_of(self.config), name="se")(y)
        if kept is not None:
            y = stochastic_depth(y, kept, drop_rate)
        if self.stride != 1 or x.shape[-1] != outputs:
            stride = self.stride
            if whole.average_shortcut and stride != 1:
                x, stride = average_pool(x), 1
            x = conv(outputs, stride=stride, activation=None, name="shortcut")(x, train=train)
        return nn.relu(x + y)


class ResNet(ImageModel):
    """ResNet as its config says. Collections: `params` and `batch_stats`."""

    config: ResNetConfig

    def setup(self) -> None:
        config, whole = self.config, self.config.whole
        width = whole.width
        if whole.deep_stem:
            half = width // 2
            self.stem = [
                _conv(config, half, 3, stride=2),
                _conv(config, half, 3),
                _conv(config, width, 3),
            ]
        else:
            self.stem = [_conv(config, width, 7, stride=2)]
        if whole.stem_pool == "conv":
            self.stem_conv = _conv(config, width, 3, stride=2)
        # `train`, the second argument after the block itself, is no array.
        block: Any = (
            nn.remat(Bottleneck, static_argnums=2) if config.remat == "blocks" else Bottleneck
        )
        self.stages = [
            [
                block(config, width << stage, 2 if stage and not repeat else 1)
                for repeat in range(repeats)
            ]
            for stage, repeats in enumerate(whole.repeats)
        ]
        if self.classifies:
            self.classifier = Classifier(self.num_classes, **dtypes_of(config))

    def pooled(self, images: jax.Array, train: bool, drop_rate: Rate | None) -> jax.Array:
        """The means over the last feature map, float32 `[B, C]`."""
        return pixel_mean(self._feature_maps(images, train, drop_rate)[-1])

    def features(
        self, images: jax.Array, train: bool = False, stochastic_depth_rate: Rate | None = None
    ) -> dict[str, jax.Array]:
        """The last feature map of every resolution, `reduction_1` to `reduction_5`."""
        return last_of_each_resolution(self._feature_maps(images, train, stochastic_depth_rate))

    def _feature_maps(
        self, images: jax.Array, train: bool, drop_rate: Rate | None
    ) -> list[jax.Array]:
        """The output of the stem and of every stage."""
        check_images(images, self.min_size, self.config.input_channels)
        x = images.astype(self.dtype)
        for conv in self.stem:
            x = conv(x, train=train)
        maps = [x]
        x = self.stem_conv(x, train=train) if self.config.whole.stem_pool == "conv" else max_pool(x)
        blocks = [block for stage in self.stages for block in stage]
        rate = self.config.stochastic_depth_rate if drop_rate is None else drop_rate
        drops = draw_kept(self, images.shape[0], len(blocks), rate if train else 0.0)
        for stage in self.stages:
            for block in stage:
                x = block(x, train, *next(drops))
            maps.append(x)
        return maps


def build(config: ResNetConfig, **fields: Any) -> ResNet:
    """The module of a config.

    Args:
      fields: others of the module, such as `num_classes` and `preprocessing`.
    """
    own = {"dropout_rate": get_variant(config.name).dropout_rate}
    return ResNet(config=config.resolved(), **(own | fields))
