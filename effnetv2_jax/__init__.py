"""EfficientNetV2 and its progressive learning in JAX and Flax.

    from effnetv2_jax import create_model

    model = create_model("efficientnetv2-s", num_classes=1000)

Names are imported on first use, so that using one part does not load another.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effnetv2_jax.models.efficientnet import EfficientNet, create_model
    from effnetv2_jax.models.variants import StageSpec, list_models

__version__ = "0.1.0"

_HOMES = {
    "EfficientNet": "effnetv2_jax.models.efficientnet",
    "StageSpec": "effnetv2_jax.models.variants",
    "create_model": "effnetv2_jax.models.efficientnet",
    "list_models": "effnetv2_jax.models.variants",
}

__all__ = ["EfficientNet", "StageSpec", "create_model", "list_models"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
