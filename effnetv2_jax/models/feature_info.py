"""What feature maps a model gives, without computing any."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from effnetv2_jax.models.protocol import Model, gives_features
from effnetv2_jax.models.shapes import abstract_variables

_SIZE = 256
"""Of the images it is asked about: a multiple of every resolution's reduction."""


class FeatureLevel(NamedTuple):
    """A feature map `[B, H / reduction, W / reduction, channels]`, sizes rounded up."""

    channels: int
    reduction: int


def feature_info(model: Model) -> dict[str, FeatureLevel]:
    """The maps that `model.apply(..., method="features")` gives, by name, the largest first.

    Args:
      model: with or without `features_only`.
    """
    images = jax.ShapeDtypeStruct((1, _SIZE, _SIZE, 3), jnp.float32)
    method = {} if gives_features(model) else {"method": "features"}

    def features(variables: object, images: jax.Array) -> dict[str, jax.Array]:
        maps: dict[str, jax.Array] = model.apply(variables, images, train=False, **method)
        return maps

    maps = jax.eval_shape(features, abstract_variables(model), images)
    return {name: FeatureLevel(one.shape[-1], _SIZE // one.shape[1]) for name, one in maps.items()}
