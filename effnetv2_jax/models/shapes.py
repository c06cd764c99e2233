"""The shapes of a model's variables, without computing any."""

from typing import Any

import jax
import jax.numpy as jnp

from effnetv2_jax.models.protocol import Model


def abstract_variables(model: Model, *, height: int | None = None, width: int | None = None) -> Any:
    """The shapes and dtypes of a model's variables, by collection, modules and name.

    Args:
      height, width: of the images they are initialised for; None takes the least.
    """

    def initialize(images: jax.Array) -> Any:
        return model.init(jax.random.key(0), images, train=False)

    return jax.eval_shape(initialize, abstract_image(model, height=height, width=width))


def abstract_image(
    model: Model, *, height: int | None = None, width: int | None = None
) -> jax.ShapeDtypeStruct:
    """A batch of one float image; None takes the least size, and a model without config has RGB."""
    channels = getattr(getattr(model, "config", None), "input_channels", 3)
    size = (height or model.min_size, width or model.min_size)
    return jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)


def variable_shapes(model: Model) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The shape of every array of a model, by collection, modules and name."""
    leaves, _ = jax.tree.flatten_with_path(abstract_variables(model))
    return {tuple(key.key for key in path): leaf.shape for path, leaf in leaves}
