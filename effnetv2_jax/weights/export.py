"""A model with its weights as one file, for programs that know nothing of Flax or of us."""

import contextlib
import dataclasses
import json
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
    any_size: bool = False,
    features: bool = False,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
) -> export.Exported:
    """The model's inference as StableHLO, weights and normalisation included.

    Its `serialize()` gives the bytes of a file; `jax.export.deserialize(...).call(images)` runs
    them, in any program that has JAX, with any batch.

    Args:
      model, variables: as for `model.apply`.
      image_size: height and width S of the images; None takes the preprocessing's.
      any_size: leaves height and width open, from the model's least on. EfficientNet can.
      features: whether it returns feature maps, `{"reduction_1": [B, S / 2, S / 2, D], ...}`.
      platforms: which it is lowered for; each has its own convolutions.

    Returns:
      A function of uint8 `[B, S, S, C]`, resized but not normalised, to float32 logits
      `[B, num_classes]` (or feature maps), with symbolic B.

    Raises:
      ValueError: the model has no logits, or no feature maps, or the size cannot be left open.
    """
    infer = jax.jit(_inference(model, variables, features))
    images = _images(model, image_size, any_size)
    with _of_any_size(model) if any_size else contextlib.nullcontext():
        return export.export(infer, platforms=list(platforms))(images)


def export_onnx(
    path: str | os.PathLike[str],
    model: Model,
    variables: Mapping[str, Any],
    *,
    image_size: int | None = None,
    any_size: bool = False,
    features: bool = False,
    opset: int | None = None,
) -> Path:
    """Writes the model's inference as an ONNX file, weights and normalisation included.

    Its input `images` is uint8 `[B, S, S, C]`, resized but not normalised, with symbolic B, and its
    output `logits` float32 `[B, num_classes]`. The conversion is jax2onnx's. The file's metadata
    have `preprocessing` and `class_names`, where there are any, as JSON.

    Args:
      path: of the file, which is replaced if it exists.
      model, variables: as for `model.apply`; the model has to compute in float32.
      image_size: height and width S of the images; None takes the preprocessing's.
      any_size: leaves height and width open, from the model's least on. EfficientNet can, with
        padding="symmetric": TensorFlow's depends on the size.
      features: whether its outputs are feature maps, `reduction_1` and so on, float32
        `[B, S / 2, S / 2, D]`, in place of `logits`.
      opset: of ONNX's operators, from 17 on (GELU: 20); None takes jax2onnx's.

    Raises:
      ImportError: jax2onnx is missing.
      ValueError: the model computes in another dtype, has no logits, or no feature maps, or it
        cannot be had with this opset or for any size.
    """
    if model.dtype != jnp.float32:
        raise ValueError(f"the model computes in {model.dtype}; ONNX takes one of float32")
    infer = _inference(model, variables, features)
    with _quiet("jax2onnx"):
        try:
            import jax2onnx
            import onnx
        except ImportError as error:
            raise ImportError(
                "exporting to ONNX needs jax2onnx: pip install effnetv2_jax[onnx]"
            ) from error
    images = _images(model, image_size, any_size)
    outputs = ["logits"]
    left_open = _of_any_size(model) if any_size else contextlib.nullcontext()
    with plain_operations(), _quiet("jax2onnx"), _quiet("onnx_ir"), left_open:
        if features:
            outputs = sorted(jax.eval_shape(infer, images))  # As JAX orders a dict's leaves.
        converted = jax2onnx.to_onnx(
            infer,
            [images],
            model_name=family_of_model(model).name,
            input_names=["images"],
            output_names=outputs,
            **({} if opset is None else {"opset": opset}),
        )
    onnx.helper.set_model_props(converted, _metadata(model))
    try:
        onnx.checker.check_model(converted)
    except onnx.checker.ValidationError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"the model has no valid form in opset {opset}: {reason}") from error
    path = Path(path).expanduser()
    onnx.save(converted, path)
    return path


def _images(model: Model, image_size: int | None, any_size: bool) -> jax.ShapeDtypeStruct:
    channels = model.config.input_channels
    if any_size:
        if image_size is not None:
            raise ValueError(f"image_size is {image_size}, and any_size leaves the size open")
        least = model.min_size
        sizes = export.symbolic_shape("B, H, W", constraints=[f"H >= {least}", f"W >= {least}"])
        return jax.ShapeDtypeStruct((*sizes, channels), jnp.uint8)
    size = image_size or model.preprocessing.image_size
    (batch,) = export.symbolic_shape("B")
    return jax.ShapeDtypeStruct((batch, size, size, channels), jnp.uint8)


@contextlib.contextmanager
def _of_any_size(model: Model) -> Iterator[None]:
    """Says of a model whose size cannot be left open that this is so."""
    try:
        yield
    except Exception as error:  # JAX and jax2onnx raise several kinds.
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{model.config.name} cannot be exported for any image size; leave out any_size "
            f"({type(error).__name__}: {reason})"
        ) from error


def _metadata(model: Model) -> dict[str, str]:
    stated = {"preprocessing": json.dumps(dataclasses.asdict(model.preprocessing))}
    if model.class_names is not None:
        stated["class_names"] = json.dumps(model.class_names, ensure_ascii=False)
    return stated


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


def _inference(
    model: Model, variables: Mapping[str, Any], features: bool
) -> Callable[[jax.Array], Any]:
    if features and not hasattr(model, "features"):
        raise ValueError(f"{model.config.name} has no feature maps to export")
    if gives_features(model) and not features:
        raise ValueError("a model with features_only has no logits to export; features=True")
    preprocessing = model.preprocessing
    options = {"method": "features"} if features else {}

    def infer(images: jax.Array) -> Any:
        normalized = normalize(images, preprocessing.mean, preprocessing.std, model.dtype)
        return model.apply(variables, normalized, train=False, **options)

    return infer
