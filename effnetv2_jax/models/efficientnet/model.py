"""EfficientNetV2: a stem, a table of blocks and a classifier (paper, section 3.3)."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from effnetv2_jax.models.efficientnet.blocks import BLOCKS, Block
from effnetv2_jax.models.efficientnet.variants import StageSpec, get_variant
from effnetv2_jax.models.layers import BatchNorm, ConvNorm, Rate, classifier_uniform, dropout
from effnetv2_jax.ops.conv import Padding
from effnetv2_jax.preprocessing import Preprocessing, squashed


class EfficientNet(nn.Module):
    """EfficientNetV2 as a table of stages; `create_model` fills in a published one's fields.

    Collections: `params` and `batch_stats`. One random stream, `dropout`, serves dropout and
    stochastic depth in training.
    """

    stages: tuple[StageSpec, ...]
    num_classes: int = 1000
    """0 leaves out the classifier: the model returns pooled features."""
    features_only: bool = False
    """The model returns `features`, and has neither head nor classifier."""
    width: float = 1.0
    depth: float = 1.0
    rounding_floor: float = 0.0
    """See `round_channels`: 0 in EfficientNetV2, 0.9 in its predecessor."""
    head_features: int = 1280
    dropout_rate: float = 0.0
    stochastic_depth_rate: float = 0.2
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3
    bn_frozen: bool = False
    """BatchNorm uses its moving statistics in training too, and leaves them as they are."""
    bn_group: int | None = None
    """Examples that share BatchNorm statistics in training; None is the whole batch."""
    padding: Padding = "same"
    """Of convolutions: TensorFlow's, or PyTorch's as torchvision's weights need it."""
    preprocessing: Preprocessing = squashed(224)
    """What pictures have to go through before; computes nothing here."""
    class_names: tuple[str, ...] | None = dataclasses.field(default=None, repr=False, compare=False)
    """What the logits stand for, where that is known; computes nothing here."""
    remat: bool = False
    """The backward pass computes what is inside a block again, from the block's input."""
    dtype: Any = jnp.float32
    """Of activations. Logits are float32, or wider where `param_dtype` is."""
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        numerics = {
            "norm": functools.partial(
                BatchNorm,
                momentum=self.bn_momentum,
                epsilon=self.bn_epsilon,
                group=self.bn_group,
                frozen=self.bn_frozen,
            ),
            "padding": self.padding,
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
        }
        scale = functools.partial(
            round_channels, width=self.width, rounding_floor=self.rounding_floor
        )
        self.stem = ConvNorm(scale(self.stages[0].inputs), kernel_size=3, stride=2, **numerics)
        specs = list(expand_stages(self.stages, scale=scale, depth=self.depth))
        kinds: dict[str, Any] = dict(BLOCKS)
        if self.remat:
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
        self.head = ConvNorm(scale(self.head_features), **numerics)
        self.classifier = Classifier(self.num_classes, self.dtype, self.param_dtype)

    def __call__(
        self, images: jax.Array, train: bool = False, dropout_rate: Rate | None = None
    ) -> Any:
        """Classifies normalised images.

        Args:
          images: `[B, H, W, 3]`, H and W at least 32; as `preprocessing` says.
          train: uses batch statistics, dropout and stochastic depth; needs
            `rngs={"dropout": key}` and `mutable=["batch_stats"]`.
          dropout_rate: takes the place of the model's own. It may be a traced scalar, so that a
            schedule of rates needs one compilation.

        Returns:
          float32 logits `[B, num_classes]`; without classes, what the classifier would see, float32
          `[B, C]`; with `features_only`, what `features` returns.
        """
        if self.features_only:
            return self.features(images, train)
        *_, x = self._feature_maps(images, train)
        x = self.head(x, train=train)
        # Means over many pixels need more digits than bfloat16 has.
        x = x.mean((1, 2), dtype=jnp.promote_types(self.dtype, jnp.float32))
        rate = self.dropout_rate if dropout_rate is None else dropout_rate
        if train and not (isinstance(rate, float | int) and rate == 0):
            x = dropout(x, rate, self.make_rng("dropout"))
        return self.classifier(x) if self.num_classes else x

    def features(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """The last feature map of every resolution, for detection, segmentation and the like.

        Args:
          images, train: as in `__call__`.

        Returns:
          `{"reduction_1": [B, H / 2, W / 2, C], ..., "reduction_5": [B, H / 32, W / 32, C]}`,
          sizes rounded up.
        """
        maps: list[jax.Array] = []
        for x in self._feature_maps(images, train):
            if maps and maps[-1].shape[1:3] == x.shape[1:3]:
                maps.pop()
            maps.append(x)
        return {f"reduction_{index}": x for index, x in enumerate(maps, start=1)}

    def _feature_maps(self, images: jax.Array, train: bool) -> Iterator[jax.Array]:
        # Sizes are compared one by one, because symbolic ones have no smallest.
        if images.ndim != 4 or images.shape[-1] != 3 or any(n < 32 for n in images.shape[1:3]):
            raise ValueError(
                f"images must be [B, H, W, 3] with H and W at least 32, not {images.shape}"
            )
        x = self.stem(images.astype(self.dtype), train=train)
        yield x
        kept = self._draw_kept(len(images)) if train else [None] * len(self.blocks)
        for block, block_kept in zip(self.blocks, kept, strict=True):
            x = block(x, train, block_kept)
            yield x

    def _draw_kept(self, batch: int) -> Sequence[jax.Array | None]:
        """For every block, which examples stochastic depth keeps: bool `[B]`."""
        if self.stochastic_depth_rate == 0:
            return [None] * len(self.blocks)
        # One draw serves all blocks, since random bits are slow to compile.
        draws = jax.random.uniform(self.make_rng("dropout"), (len(self.blocks) * batch,))
        rates = jnp.array([block.drop_rate for block in self.blocks])
        return list(draws.reshape(-1, batch) >= rates[:, None])


class Classifier(nn.Module):
    """Dense layer with float32 accumulation and output."""

    num_classes: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.num_classes)
        kernel = self.param("kernel", classifier_uniform, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:], self.param_dtype)
        logits = jnp.matmul(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            preferred_element_type=jnp.promote_types(self.dtype, jnp.float32),
        )
        return logits + bias


def create_model(name: str, *, num_classes: int = 1000, **overrides: Any) -> EfficientNet:
    """A model of the family as a Flax Linen module.

    Args:
      name: one of `list_models()`, such as "efficientnetv2-s".
      num_classes: number of logits; 0 for pooled features in place of logits.
      **overrides: any other field of `EfficientNet`, such as `dropout_rate`, `dtype`, `width`,
        `depth`, `bn_momentum`, `features_only` or `stages`.

    Raises:
      ValueError: unknown name; the message has the known ones and the closest.
    """
    variant = get_variant(name)
    fields: dict[str, Any] = {
        "stages": variant.stages,
        "width": variant.width,
        "depth": variant.depth,
        "rounding_floor": variant.rounding_floor,
        "dropout_rate": variant.dropout_rate,
        "preprocessing": variant.preprocessing,
    }
    return EfficientNet(**{**fields, "num_classes": num_classes, **overrides})


def abstract_variables(model: nn.Module, *, height: int = 32, width: int = 32) -> Any:
    """The shapes and dtypes of a model's variables, initialised for images of that size."""

    def initialize(images: jax.Array) -> Any:
        return model.init(jax.random.key(0), images, train=False)

    images = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    return jax.eval_shape(initialize, images)


def round_channels(channels: int, width: float, rounding_floor: float = 0.0) -> int:
    """Scales a channel count and rounds it to a multiple of 8, but not below 8.

    Args:
      rounding_floor: rounds up where less than this share of the scaled count would be left.
    """
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded if rounded >= rounding_floor * scaled else rounded + 8


def round_repeats(repeats: int, depth: float) -> int:
    """Scales how often a stage's block is repeated, and rounds it up."""
    return math.ceil(depth * repeats)


def expand_stages(
    stages: tuple[StageSpec, ...], *, scale: Callable[[int], int], depth: float
) -> Iterator[StageSpec]:
    """One row per block, with repeats scaled by `depth` and channels by `scale`."""
    for stage in stages:
        outputs = scale(stage.outputs)
        for repeat in range(round_repeats(stage.repeats, depth)):
            yield stage._replace(
                inputs=outputs if repeat else scale(stage.inputs),
                outputs=outputs,
                stride=1 if repeat else stage.stride,
                repeats=1,
            )
