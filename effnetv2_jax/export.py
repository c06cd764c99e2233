"""A model with its weights as one file, for programs that know nothing of Flax or of us."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from effnetv2_jax.augment.batch import normalize
from effnetv2_jax.models.efficientnet import EfficientNet


def export_model(
    model: EfficientNet,
    variables: Mapping[str, Any],
    *,
    image_size: int | None = None,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
) -> export.Exported:
    """The model's inference as StableHLO, weights and normalisation included.

    Its `serialize()` gives the bytes of a file; `jax.export.deserialize(...).call(images)` runs
    them, in any program that has JAX, with any batch.

    Args:
      model, variables: as for `model.apply`.
      image_size: height and width S of the images; None takes the preprocessing's.
      platforms: which it is lowered for; each has its own convolutions.

    Returns:
      A function of uint8 `[B, S, S, 3]`, resized but not normalised, to float32 logits
      `[B, num_classes]`, with symbolic B.
    """
    preprocessing = model.preprocessing
    size = image_size or preprocessing.image_size

    def classify(images: jax.Array) -> jax.Array:
        normalized = normalize(images, preprocessing.mean, preprocessing.std, model.dtype)
        return model.apply(variables, normalized, train=False)  # type: ignore[return-value]

    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)
    return export.export(jax.jit(classify), platforms=list(platforms))(images)
