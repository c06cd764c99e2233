"""Weights for others to use: timm, torchvision and Keras, or the Hugging Face Hub."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from effnetv2_jax.models.efficientnet.model import EfficientNet
from effnetv2_jax.models.efficientnet.published import (
    TORCHVISION_PREPROCESSING,
    architecture,
    numerics,
)
from effnetv2_jax.models.libraries import TIMM, TORCHVISION
from effnetv2_jax.weights.arrays import write_safetensors
from effnetv2_jax.weights.card import identify, write_card
from effnetv2_jax.weights.convert import to_source
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.hub import CONFIG, KERAS_WEIGHTS, WEIGHTS

Library = Literal["timm", "torchvision", "keras"]


def save_pretrained(
    folder: str | os.PathLike[str],
    model: EfficientNet,
    variables: Mapping[str, Any],
    *,
    library: Library = "timm",
) -> Path:
    """Writes weights so that another library can load them, or `load_pretrained(None, folder)`.

    `timm` gives `model.safetensors` and `config.json`, the format of the Hub: upload the folder
    with `hf upload OWNER/REPO FOLDER` for `hub:OWNER/REPO`, or load it with
    `timm.create_model("local-dir:FOLDER")`. `torchvision` gives `model.safetensors`, a state dict
    for a model with `padding="symmetric"`. `keras` gives `model.keras`.

    Args:
      folder: made if it is missing; files in it of the same names are replaced.
      model: its `preprocessing` and `class_names` are written to `config.json`.
      variables: `params` and `batch_stats`.
      library: for which.

    Raises:
      WeightsError: the library has no such model, or the variables are not the model's.
    """
    _check(library, model)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if library == "keras":
        from effnetv2_jax.weights.keras_files import to_keras  # Imported here for its h5py.

        to_keras(model, variables).save(folder / KERAS_WEIGHTS)
    else:
        source = TIMM if library == "timm" else TORCHVISION
        write_safetensors(folder / WEIGHTS, to_source(model, variables, source))
    write_card(folder / CONFIG, model, library=library)
    return folder


def _check(library: Library, model: EfficientNet) -> None:
    name, fields = identify(model)
    if model.features_only:
        raise WeightsError("load the model without features_only to save it")
    if library == "torchvision" and name not in TORCHVISION_PREPROCESSING:
        known = ", ".join(TORCHVISION_PREPROCESSING)
        raise WeightsError(f"torchvision has no {name}; it has {known}")
    if library == "timm" and architecture(name, fields):
        return
    for field, needed in numerics(name, library=library).items():
        if getattr(model, field) != needed:
            raise WeightsError(
                f"{library}'s {name} computes with {field}={needed!r}, but this model was trained "
                f"with {getattr(model, field)!r}"
            )
