"""A model with its weights as one file, for programs that know nothing of Flax or of us."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from effnetv2_jax.augment.batch import normalize
from effnetv2_jax.models.protocol import Model, gives_features
from effnetv2_jax.models.registry import family_of_model
from effnetv2_jax.ops.per_platform import plain_operations


def export_model(
    model: Model,
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
      A function of uint8 `[B, S, S, C]`, resized but not normalised, to float32 logits
      `[B, num_classes]`, with symbolic B.

    Raises:
      ValueError: the model has no logits.
    """
    size = image_size or model.preprocessing.image_size
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, size, size, model.config.input_channels), jnp.uint8)
    classify = jax.jit(_classifier(model, variables))
    return export.export(classify, platforms=list(platforms))(images)


def export_onnx(
    path: str | os.PathLike[str],
    model: Model,
    variables: Mapping[str, Any],
    *,
    image_size: int | None = None,
) -> Path:
    """Writes the model's inference as an ONNX file, weights and normalisation included.

    Its input `images` is uint8 `[B, S, S, C]`, resized but not normalised, with symbolic B, and its
    output `logits` float32 `[B, num_classes]`. The conversion is jax2onnx's.

    Args:
      path: of the file, which is replaced if it exists.
      model, variables: as for `model.apply`; the model has to compute in float32.
      image_size: height and width S of the images; None takes the preprocessing's.

    Raises:
      ImportError: jax2onnx is missing.
      ValueError: the model computes in another dtype, or has no logits.
    """
    if model.dtype != jnp.float32:
        raise ValueError(f"the model computes in {model.dtype}; ONNX takes one of float32")
    with _quiet("jax2onnx"):
        try:
            import jax2onnx
            import onnx
        except ImportError as error:
            raise ImportError(
                "exporting to ONNX needs jax2onnx: pip install effnetv2_jax[onnx]"
            ) from error
    size = image_size or model.preprocessing.image_size
    images = jax.ShapeDtypeStruct(("B", size, size, model.config.input_channels), jnp.uint8)
    with plain_operations(), _quiet("jax2onnx"), _quiet("onnx_ir"):
        converted = jax2onnx.to_onnx(
            _classifier(model, variables),
            [images],
            model_name=family_of_model(model).name,
            input_names=["images"],
            output_names=["logits"],
        )
    path = Path(path).expanduser()
    onnx.save(converted, path)
    return path


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silences the warnings of a package that warns of what is no concern of the caller's."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _classifier(model: Model, variables: Mapping[str, Any]) -> Callable[[jax.Array], jax.Array]:
    if gives_features(model):
        raise ValueError("a model with features_only has no logits to export")
    preprocessing = model.preprocessing

    def classify(images: jax.Array) -> jax.Array:
        normalized = normalize(images, preprocessing.mean, preprocessing.std, model.dtype)
        return model.apply(variables, normalized, train=False)

    return classify
