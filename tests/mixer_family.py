"""A family from outside of the package: small ConvMixers (arXiv 2201.09792), without BatchNorm."""

import dataclasses
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from effnetv2_jax.models.layers import check_images, dropout
from effnetv2_jax.models.protocol import Family, ModelConfig
from effnetv2_jax.models.registry import register
from effnetv2_jax.preprocessing import Preprocessing, squashed

SIZES = {"mixer-tiny": (16, 2), "mixer-small": (32, 4)}
"""Width and depth by name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixerConfig(ModelConfig):
    name: str = "mixer-tiny"
    width: int | None = None
    depth: int | None = None
    patch: int = 4
    kernel: int = 5

    FOLLOW_NAME: ClassVar[tuple[str, ...]] = ("width", "depth")
    NUMERICS: ClassVar[tuple[str, ...]] = ("patch", "kernel")
    MIN_SIZE: ClassVar[int] = 16

    def resolved(self) -> Self:
        width, depth = SIZES[self.name]
        return dataclasses.replace(self, width=self.width or width, depth=self.depth or depth)


class Mixer(nn.Module):
    config: MixerConfig
    num_classes: int
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None = None

    min_size = MixerConfig.MIN_SIZE

    @property
    def dtype(self) -> Any:
        return jnp.dtype(self.config.dtype)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, dropout_rate: Any = 0.0) -> Any:
        check_images(images, self.min_size)
        width, depth = self.config.width, self.config.depth
        assert width is not None
        assert depth is not None

        def conv(x: jax.Array, name: str, size: int, **options: Any) -> jax.Array:
            x = nn.Conv(width, (size, size), dtype=self.dtype, name=name, **options)(x)
            return nn.gelu(nn.LayerNorm(dtype=self.dtype, name=f"{name}_norm")(x))

        x = conv(images.astype(self.dtype), "stem", self.config.patch, strides=self.config.patch)
        for index in range(depth):
            x += conv(x, f"places_{index}", self.config.kernel, feature_group_count=width)
            x = conv(x, f"channels_{index}", 1)
        x = x.mean((1, 2), dtype=jnp.float32)
        if train:
            x = dropout(x, dropout_rate, self.make_rng("dropout"))
        return nn.Dense(self.num_classes, name="logits")(x) if self.num_classes else x


FAMILY = register(
    Family(
        name="mixer",
        config=MixerConfig,
        variants=dict.fromkeys(SIZES, squashed(64)),
        build=lambda config, **fields: Mixer(config=config.resolved(), **fields),
        thin=lambda config: dataclasses.replace(config, width=8, depth=1),
        head=("logits",),
    )
)
