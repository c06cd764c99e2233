"""What the modules of several families have in common: their fields, dropout and classifier."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from effnetv2_jax.models.layers import Rate, dropout
from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.preprocessing import Preprocessing


class ImageModel(nn.Module):
    """A network as its config says; `create_model` makes one by name.

    A family's own has `pooled` and `features`, and in `setup` a `classifier`. One random stream,
    `dropout`, serves dropout and stochastic depth in training.
    """

    config: Any
    """With everything stated that follows from the name."""
    preprocessing: Preprocessing
    """What pictures have to go through before; computes nothing here."""
    num_classes: int = 1000
    """0 leaves out the classifier: the model returns what it would see."""
    features_only: bool = False
    """The model returns `features`, and has no classifier."""
    dropout_rate: float = 0.0
    """Before the classifier."""
    class_names: tuple[str, ...] | None = dataclasses.field(default=None, repr=False, compare=False)
    """What the logits stand for, where that is known; computes nothing here."""

    @property
    def dtype(self) -> Any:
        """Of images and activations. Logits are float32, or float64 with it."""
        return jnp.dtype(self.config.dtype)

    @property
    def min_size(self) -> int:
        """Least height and width of images, in pixels."""
        least: int = self.config.MIN_SIZE
        return least

    @property
    def classifies(self) -> bool:
        """Whether it has a classifier."""
        return bool(self.num_classes) and not self.features_only

    def __call__(
        self,
        images: jax.Array,
        train: bool = False,
        dropout_rate: Rate | None = None,
        stochastic_depth_rate: Rate | None = None,
    ) -> Any:
        """Classifies normalised images.

        Args:
          images: `[B, H, W, C]` of the config's `input_channels`, H and W at least `min_size`; as
            `preprocessing` says.
          train: uses batch statistics if it has any, dropout and stochastic depth; needs
            `rngs={"dropout": key}` and its collections as `mutable`.
          dropout_rate, stochastic_depth_rate: take the place of the model's own. They may be traced
            scalars, so that a schedule of rates needs one compilation.

        Returns:
          float32 logits `[B, num_classes]`; without classes, what the classifier would see, float32
          `[B, C]`; with `features_only`, what `features` returns.
        """
        if self.features_only:
            return self.features(images, train, stochastic_depth_rate)
        x = self.pooled(images, train, stochastic_depth_rate)
        return classify(self, x, train, dropout_rate)

    def pooled(self, images: jax.Array, train: bool, drop_rate: Rate | None) -> jax.Array:
        """What the classifier sees, float32 or wider `[B, C]`."""
        raise NotImplementedError

    def features(
        self, images: jax.Array, train: bool = False, stochastic_depth_rate: Rate | None = None
    ) -> dict[str, jax.Array]:
        """Feature maps, for detection, segmentation and the like.

        Args:
          images, train, stochastic_depth_rate: as in `__call__`.

        Returns:
          `[B, H / 2^i, W / 2^i, C]` under `reduction_i`, sizes rounded up.
        """
        raise NotImplementedError


def classify(model: Any, x: jax.Array, train: bool, dropout_rate: Rate | None) -> jax.Array:
    """Dropout and the classifier of a model, if it has one, for what it sees, `[B, C]`.

    Args:
      dropout_rate: takes the place of the model's own.
    """
    rate = model.dropout_rate if dropout_rate is None else dropout_rate
    if train and not (isinstance(rate, float | int) and rate == 0):
        x = dropout(x, rate, model.make_rng("dropout"))
    return model.classifier(x) if model.num_classes else x


def dtypes_of(config: ModelConfig) -> dict[str, Any]:
    """`dtype` and `param_dtype` of a network's layers."""
    dtype = jnp.dtype(config.dtype)
    return {"dtype": dtype, "param_dtype": jnp.promote_types(dtype, jnp.float32)}
