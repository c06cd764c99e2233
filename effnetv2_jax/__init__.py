"""EfficientNetV2 and its progressive learning in JAX and Flax.

    from effnetv2_jax import jit, load_pretrained, preprocess

    model, variables = load_pretrained("efficientnetv2-s", "in21k-ft1k")
    logits = jit(model.apply)(variables, preprocess("cat.jpg", like=model))

Names are imported on first use, so that using one part does not load another.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effnetv2_jax.api import TrainedRun, evaluate, predict, train
    from effnetv2_jax.data.pictures.model_input import preprocess
    from effnetv2_jax.models.efficientnet.model import EfficientNet
    from effnetv2_jax.models.efficientnet.variants import StageSpec
    from effnetv2_jax.models.feature_info import feature_info
    from effnetv2_jax.models.registry import create_model, list_models
    from effnetv2_jax.outputs.callbacks import Callback
    from effnetv2_jax.outputs.live_plot import LivePlot
    from effnetv2_jax.parallel.compiler import jit
    from effnetv2_jax.preprocessing import Preprocessing
    from effnetv2_jax.weights.errors import WeightsError
    from effnetv2_jax.weights.export import export_model, export_onnx
    from effnetv2_jax.weights.keras_files import to_keras
    from effnetv2_jax.weights.pretrained import load_pretrained
    from effnetv2_jax.weights.save import save_pretrained

__version__ = "0.1.0"

_HOMES = {
    "Callback": "effnetv2_jax.outputs.callbacks",
    "EfficientNet": "effnetv2_jax.models.efficientnet.model",
    "LivePlot": "effnetv2_jax.outputs.live_plot",
    "Preprocessing": "effnetv2_jax.preprocessing",
    "StageSpec": "effnetv2_jax.models.efficientnet.variants",
    "TrainedRun": "effnetv2_jax.api",
    "WeightsError": "effnetv2_jax.weights.errors",
    "create_model": "effnetv2_jax.models.registry",
    "evaluate": "effnetv2_jax.api",
    "export_model": "effnetv2_jax.weights.export",
    "export_onnx": "effnetv2_jax.weights.export",
    "feature_info": "effnetv2_jax.models.feature_info",
    "jit": "effnetv2_jax.parallel.compiler",
    "list_models": "effnetv2_jax.models.registry",
    "load_pretrained": "effnetv2_jax.weights.pretrained",
    "preprocess": "effnetv2_jax.data.pictures.model_input",
    "save_pretrained": "effnetv2_jax.weights.save",
    "to_keras": "effnetv2_jax.weights.keras_files",
}

_MODULES = ("predict", "train")
"""Modules that can be called as the functions of these names in `effnetv2_jax.api`."""

__all__ = [
    "Callback",
    "EfficientNet",
    "LivePlot",
    "Preprocessing",
    "StageSpec",
    "TrainedRun",
    "WeightsError",
    "create_model",
    "evaluate",
    "export_model",
    "export_onnx",
    "feature_info",
    "jit",
    "list_models",
    "load_pretrained",
    "predict",
    "preprocess",
    "save_pretrained",
    "to_keras",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
