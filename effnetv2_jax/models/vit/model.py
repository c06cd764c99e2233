"""The vision transformer: patches as tokens, blocks of attention, and a classifier."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from effnetv2_jax.models.image_model import ImageModel, dtypes_of
from effnetv2_jax.models.layers import (
    Classifier,
    Rate,
    check_images,
    draw_kept,
    normal_of,
    stochastic_depth,
)
from effnetv2_jax.models.vit.config import ViTConfig
from effnetv2_jax.ops.attention import attention

SMALL = normal_of(0.02)
"""As timm and DeiT begin, whose truncation at 2, a hundred deviations, truncates nothing."""


class Block(nn.Module):
    """Attention between tokens, then a layer of four times the width on each, both residual.

    Called on `[B, T, C]`, with bool `[2 B]` of the examples that stochastic depth keeps in the one
    branch and in the other (None keeps all), and with its rate.
    """

    config: ViTConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, kept: jax.Array | None = None, drop_rate: Rate = 0.0
    ) -> jax.Array:
        whole, dtypes = self.config.whole, dtypes_of(self.config)
        norm = functools.partial(nn.LayerNorm, epsilon=self.config.norm_epsilon, **dtypes)

        def dense(features: int, name: str) -> nn.Dense:
            return nn.Dense(features, kernel_init=SMALL, name=name, **dtypes)

        def branch(y: jax.Array, half: slice) -> jax.Array:
            return y if kept is None else stochastic_depth(y, kept[half], drop_rate)

        batch, tokens, width = x.shape
        qkv = dense(3 * width, "qkv")(norm(name="norm1")(x))
        qkv = qkv.reshape(batch, tokens, 3, whole.heads, width // whole.heads)
        mixed = attention(*jnp.moveaxis(qkv, 2, 0))
        x += branch(dense(width, "proj")(mixed.reshape(x.shape)), slice(None, batch))
        hidden = nn.gelu(dense(4 * width, "fc1")(norm(name="norm2")(x)), approximate=False)
        return x + branch(dense(width, "fc2")(hidden), slice(batch, None))


class ViT(ImageModel):
    """A vision transformer as its config says. Collections: `params` alone.

    Sizes that are no multiples of the patch's are filled up with zeros below and on the right.
    """

    config: ViTConfig

    def setup(self) -> None:
        config, whole, dtypes = self.config, self.config.whole, dtypes_of(self.config)
        # `lecun_normal` has a patch's pixels and channels as its fan-in.
        self.patches = nn.Conv(whole.width, (whole.patch,) * 2, whole.patch, "VALID", **dtypes)
        of_one, of_all = (1, 1, whole.width), (1, 1 + whole.grid**2, whole.width)
        self.class_token = self.param("class_token", SMALL, of_one, dtypes["param_dtype"])
        self.positions = self.param("positions", SMALL, of_all, dtypes["param_dtype"])
        block: Any = nn.remat(Block) if config.remat == "blocks" else Block
        self.blocks = [block(config) for _ in range(whole.depth)]
        self.norm = nn.LayerNorm(epsilon=config.norm_epsilon, **dtypes)
        if self.classifies:
            self.classifier = Classifier(self.num_classes, kernel_init=SMALL, **dtypes)

    def pooled(self, images: jax.Array, train: bool, drop_rate: Rate | None) -> jax.Array:
        """The class token, float32 `[B, C]`."""
        tokens, _ = self._tokens(images, train, drop_rate)
        return tokens[:, 0].astype(jnp.promote_types(self.dtype, jnp.float32))

    def features(
        self, images: jax.Array, train: bool = False, stochastic_depth_rate: Rate | None = None
    ) -> dict[str, jax.Array]:
        """The patches' tokens as a feature map, `reduction_4`."""
        tokens, grid = self._tokens(images, train, stochastic_depth_rate)
        return {"reduction_4": tokens[:, 1:].reshape(images.shape[0], *grid, -1)}

    def _tokens(
        self, images: jax.Array, train: bool, drop_rate: Rate | None
    ) -> tuple[jax.Array, tuple[int, int]]:
        """The class token and those of the patches, `[B, 1 + h w, C]`; h and w."""
        check_images(images, self.min_size, self.config.input_channels)
        whole, batch = self.config.whole, images.shape[0]
        fill = [(0, -length % whole.patch) for length in images.shape[1:3]]
        x = self.patches(jnp.pad(images.astype(self.dtype), ((0, 0), *fill, (0, 0))))
        _, height, width, _ = x.shape
        positions = resampled(self.positions, whole.grid, (height, width))
        token = jnp.broadcast_to(self.class_token.astype(self.dtype), (batch, 1, whole.width))
        x = jnp.concatenate([token, x.reshape(batch, -1, whole.width)], axis=1)
        x += positions.astype(self.dtype)
        rate = self.config.stochastic_depth_rate if drop_rate is None else drop_rate
        drops = draw_kept(self, 2 * batch, len(self.blocks), rate if train else 0.0)
        for block, (kept, own_rate) in zip(self.blocks, drops, strict=True):
            x = block(x, kept, own_rate)
        return self.norm(x), (height, width)


def resampled(positions: jax.Array, grid: int, size: tuple[int, int]) -> jax.Array:
    """Positions for another number of patches: bicubic (a = -1/2), with antialiasing, as timm's.

    Args:
      positions: `[1, 1 + grid * grid, C]`, the class token's first, which stays as it is.
      grid: patches along a side that they are for.
      size: rows and columns of patches; with `(grid, grid)` they return as they are.

    Returns:
      `[1, 1 + rows * columns, C]`.
    """
    if size == (grid, grid):
        return positions
    width = positions.shape[-1]
    square = positions[:, 1:].reshape(grid, grid, width)
    rows, columns = (_bicubic(grid, length).astype(positions.dtype) for length in size)
    square = jnp.einsum("ri,cj,ijw->rcw", rows, columns, square)
    return jnp.concatenate([positions[:, :1], square.reshape(1, -1, width)], axis=1)


def _bicubic(old: int, new: int) -> np.ndarray:
    """How much of each of `old` places the `new` ones take: `[new, old]`, float64."""
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale - 0.5
    # The kernel is as wide as what it makes, so that shrinking takes in all places.
    x = np.abs(centres[:, None] - np.arange(old)) / max(scale, 1)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum(1, keepdims=True)
