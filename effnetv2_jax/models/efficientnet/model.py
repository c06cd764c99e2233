"""EfficientNetV2: a stem, a table of blocks and a classifier (paper, section 3.3)."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from effnetv2_jax.models.efficientnet.blocks import BLOCKS, Block
from effnetv2_jax.models.efficientnet.config import EfficientNetConfig
from effnetv2_jax.models.efficientnet.scaling import round_channels, scaled_repeats
from effnetv2_jax.models.efficientnet.variants import StageSpec, get_variant
from effnetv2_jax.models.image_model import classify
from effnetv2_jax.models.layers import (
    ACTIVATIONS,
    BatchNorm,
    Classifier,
    ConvNorm,
    Rate,
    check_images,
    last_of_each_resolution,
    pixel_mean,
)
from effnetv2_jax.ops.conv import Padding
from effnetv2_jax.preprocessing import Preprocessing, squashed


class EfficientNet(nn.Module):
    """EfficientNetV2 as a table of stages; `create_model` fills in a published one's fields.

    Collections: `params` and `batch_stats`. One random stream, `dropout`, serves dropout and
    stochastic depth in training.
    """

    stages: tuple[StageSpec, ...]
    stem_features: int
    num_classes: int = 1000
    """0 leaves out the classifier: the model returns pooled features."""
    features_only: bool = False
    """The model returns `features`, and has neither head nor classifier."""
    width: float = 1.0
    depth: float = 1.0
    rounding_floor: float = 0.0
    """See `round_channels`: 0 in EfficientNetV2, 0.9 in its predecessor."""
    head_features: int = 1280
    fixed_ends: bool = False
    """Whether `width` leaves the stem and the head as they are, and `depth` the first and the last
    stage."""
    activation: str = "silu"
    """One of `effnetv2_jax.models.layers.ACTIVATIONS`."""
    dropout_rate: float = 0.0
    stochastic_depth_rate: float = 0.2
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3
    bn_frozen: bool = False
    """BatchNorm uses its moving statistics in training too, and leaves them as they are."""
    bn_group: int | None = None
    """Examples that share BatchNorm statistics in training; None is the whole batch."""
    input_channels: int = 3
    """Of the images."""
    padding: Padding = "same"
    """Of convolutions: TensorFlow's, or PyTorch's as torchvision's weights need it."""
    preprocessing: Preprocessing = squashed(224)
    """What pictures have to go through before; computes nothing here."""
    class_names: tuple[str, ...] | None = dataclasses.field(default=None, repr=False, compare=False)
    """What the logits stand for, where that is known; computes nothing here."""
    variant: str = "efficientnetv2-s"
    """The model whose name it goes by; computes nothing here."""
    remat: str = "none"
    """`blocks`: the backward pass computes what is inside a block again, from its input."""
    dtype: Any = jnp.float32
    """Of activations. Logits are float32, or wider where `param_dtype` is."""
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        numerics: dict[str, Any] = {
            "norm": functools.partial(
                BatchNorm,
                momentum=self.bn_momentum,
                epsilon=self.bn_epsilon,
                group=self.bn_group,
                frozen=self.bn_frozen,
            ),
            "activation": ACTIVATIONS[self.activation],
            "padding": self.padding,
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
        }

        def end(channels: int) -> int:
            return channels if self.fixed_ends else self._scaled(channels)

        self.stem = ConvNorm(end(self.stem_features), kernel_size=3, stride=2, **numerics)
        specs = self.block_specs()
        kinds: dict[str, Any] = dict(BLOCKS)
        if self.remat == "blocks":
            # `train`, the second argument after the block itself, is no array.
            kinds = {name: nn.remat(kind, static_argnums=2) for name, kind in kinds.items()}
        self.blocks: list[Block] = [
            kinds[spec.operator](
                kernel_size=spec.kernel,
                stride=spec.stride,
                expand=spec.expand,
                outputs=spec.outputs,
                se_ratio=spec.se_ratio,
                drop_rate=self.stochastic_depth_rate * index / len(specs),
                **numerics,
            )
            for index, spec in enumerate(specs)
        ]
        self.head = ConvNorm(end(self.head_features), **numerics)
        self.classifier = Classifier(self.num_classes, self.dtype, self.param_dtype)

    @property
    def config(self) -> EfficientNetConfig:
        """The fields that a run's config states."""
        own = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(EfficientNetConfig)
            if field.name not in ("name", "dtype", "stem", "head")
        }
        return EfficientNetConfig(
            name=self.variant,
            dtype=jnp.dtype(self.dtype).name,
            stem=self.stem_features,
            head=self.head_features,
            **own,
        )

    @property
    def min_size(self) -> int:
        """Least height and width of images, in pixels."""
        return EfficientNetConfig.MIN_SIZE

    def block_specs(self) -> list[StageSpec]:
        """A row for each block, scaled."""
        counts = scaled_repeats(
            [stage.repeats for stage in self.stages], self.depth, self.fixed_ends
        )
        return [
            dataclasses.replace(
                stage,
                outputs=self._scaled(stage.outputs),
                stride=1 if repeat else stage.stride,
                repeats=1,
            )
            for stage, count in zip(self.stages, counts)
            for repeat in range(count)
        ]

    def _scaled(self, channels: int) -> int:
        return round_channels(channels, self.width, self.rounding_floor)

    def __call__(
        self,
        images: jax.Array,
        train: bool = False,
        dropout_rate: Rate | None = None,
        stochastic_depth_rate: Rate | None = None,
    ) -> Any:
        """Classifies normalised images.

        Args:
          images: `[B, H, W, C]` of `input_channels`, H and W at least 32; as `preprocessing` says.
          train: uses batch statistics, dropout and stochastic depth; needs
            `rngs={"dropout": key}` and `mutable=["batch_stats"]`.
          dropout_rate, stochastic_depth_rate: take the place of the model's own. They may be traced
            scalars, so that a schedule of rates needs one compilation.

        Returns:
          float32 logits `[B, num_classes]`; without classes, what the classifier would see, float32
          `[B, C]`; with `features_only`, what `features` returns.
        """
        if self.features_only:
            return self.features(images, train, stochastic_depth_rate)
        *_, x = self._feature_maps(images, train, stochastic_depth_rate)
        x = self.head(x, train=train)
        return classify(self, pixel_mean(x), train, dropout_rate)

    def features(
        self, images: jax.Array, train: bool = False, stochastic_depth_rate: Rate | None = None
    ) -> dict[str, jax.Array]:
        """The last feature map of every resolution, for detection, segmentation and the like.

        Args:
          images, train, stochastic_depth_rate: as in `__call__`.

        Returns:
          `{"reduction_1": [B, H / 2, W / 2, C], ..., "reduction_5": [B, H / 32, W / 32, C]}`,
          sizes rounded up.
        """
        return last_of_each_resolution(self._feature_maps(images, train, stochastic_depth_rate))

    def _feature_maps(
        self, images: jax.Array, train: bool, drop_rate: Rate | None
    ) -> Iterator[jax.Array]:
        check_images(images, self.min_size, self.input_channels)
        x = self.stem(images.astype(self.dtype), train=train)
        yield x
        rates: Sequence[Rate | None] = [None] * len(self.blocks)
        if drop_rate is not None:
            # Traced; rates that are not stay numbers in double precision until they are used.
            places = jnp.arange(len(self.blocks)) / len(self.blocks)
            rates = list(jnp.asarray(drop_rate, jnp.float32) * places)
        kept = self._draw_kept(len(images), rates) if train else [None] * len(self.blocks)
        for block, block_kept, rate in zip(self.blocks, kept, rates, strict=True):
            x = block(x, train, block_kept, rate)
            yield x

    def _draw_kept(self, batch: int, rates: Sequence[Rate | None]) -> Sequence[jax.Array | None]:
        """For every block, which examples stochastic depth keeps: bool `[B]`."""
        if rates[0] is None and self.stochastic_depth_rate == 0:
            return [None] * len(self.blocks)
        # One draw serves all blocks, since random bits are slow to compile.
        draws = jax.random.uniform(self.make_rng("dropout"), (len(self.blocks) * batch,))
        own = [block.drop_rate if rate is None else rate for block, rate in zip(self.blocks, rates)]
        return list(draws.reshape(-1, batch) >= jnp.array(own)[:, None])


def build(config: EfficientNetConfig, *, num_classes: int, **fields: Any) -> EfficientNet:
    """The module of a config.

    Args:
      fields: others of the module, such as `preprocessing`, `class_names` or `features_only`.
    """
    whole = config.resolved()
    of_config = {field.name: getattr(whole, field.name) for field in dataclasses.fields(whole)}
    own = {
        "variant": of_config.pop("name"),
        "stem_features": of_config.pop("stem"),
        "head_features": of_config.pop("head"),
        "dropout_rate": get_variant(config.name).dropout_rate,
        "dtype": jnp.dtype(of_config.pop("dtype")),
        "param_dtype": jnp.promote_types(config.dtype, jnp.float32),
    }
    return EfficientNet(num_classes=num_classes, **(of_config | own | fields))
