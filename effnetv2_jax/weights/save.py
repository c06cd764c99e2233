"""Weights for others to use: timm, torchvision and Keras, or the Hugging Face Hub."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from effnetv2_jax.models.libraries import Library, interchange_of
from effnetv2_jax.models.protocol import Model, gives_features
from effnetv2_jax.models.registry import family_of_model
from effnetv2_jax.weights.arrays import Arrays, write_safetensors
from effnetv2_jax.weights.card import OWN, write_card, write_own_card
from effnetv2_jax.weights.convert import to_library, to_own
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.hub import CONFIG, KERAS_WEIGHTS, WEIGHTS
from effnetv2_jax.weights.networks import Counterpart, NoCounterpartError, counterpart

Target = Literal["timm", "torchvision", "keras", "effnetv2_jax"]


def save_pretrained(
    folder: str | os.PathLike[str],
    model: Model,
    variables: Mapping[str, Any],
    *,
    library: Target = "timm",
) -> Path:
    """Writes weights so that another library can load them, or `load_pretrained(None, folder)`.

    `timm` gives `model.safetensors` and `config.json`, the format of the Hub: upload the folder
    with `hf upload OWNER/REPO FOLDER` for `hub:OWNER/REPO`, or load it with
    `timm.create_model("local-dir:FOLDER")`. `torchvision` gives `model.safetensors`, a state dict
    for a model with `padding="symmetric"`. `keras` gives `model.keras`. `effnetv2_jax` is our own
    format, for a model of any family: `model.safetensors`, whose arrays are called
    `<collection>/<modules>/<name>`, and `config.json`.

    Args:
      folder: made if it is missing; files in it of the same names are replaced.
      model: its `preprocessing` and `class_names` are written to `config.json`.
      variables: `params` and the model's other collections.
      library: for which.

    Raises:
      WeightsError: the library has no such network, which names the field that it cannot express;
        or the variables are not the model's. Nothing is written then.
    """
    if library not in get_args(Target):
        raise WeightsError(f"library must be one of {get_args(Target)}, not {library!r}")
    if gives_features(model):
        raise WeightsError("load the model without features_only to save it")
    folder = Path(folder)
    if library == OWN:
        _write_arrays(folder, to_own(model, variables))
        write_own_card(folder / CONFIG, model)
        return folder
    theirs, known = _counterpart(model, library)
    if library == "keras":
        from effnetv2_jax.weights.keras_files import to_keras  # Imported here for its h5py.

        converted = to_keras(model, variables)
        folder.mkdir(parents=True, exist_ok=True)
        converted.save(folder / KERAS_WEIGHTS)
    else:
        _write_arrays(folder, to_library(model, variables, theirs))
    write_card(folder / CONFIG, model, theirs, known)
    return folder


def _write_arrays(folder: Path, arrays: Arrays) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / WEIGHTS, arrays)


def _counterpart(model: Model, name: str) -> tuple[Library, Counterpart]:
    family = family_of_model(model)
    interchange = interchange_of(family)
    library = interchange.library(name) if interchange else None
    if library is None:
        raise WeightsError(
            f"models of the family {family.name}, such as {model.config.name}, have no names for "
            f"library={name!r}; library={OWN!r} saves any model"
        )
    try:
        return library, counterpart(model.config, library)
    except NoCounterpartError as error:
        raise WeightsError(f"{error}; library={OWN!r} saves any model") from None
