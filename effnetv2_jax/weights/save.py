"""Weights for others to use: timm, torchvision and Keras, or the Hugging Face Hub."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from effnetv2_jax.models.libraries import Library, interchange_of
from effnetv2_jax.models.protocol import Model, gives_features
from effnetv2_jax.models.registry import family_of_model
from effnetv2_jax.weights.arrays import Arrays, write_safetensors
from effnetv2_jax.weights.card import OWN, write_card, write_own_card
from effnetv2_jax.weights.class_names import Which, imagenet
from effnetv2_jax.weights.convert import to_library, to_own
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.hub import CONFIG, KERAS_WEIGHTS, WEIGHTS
from effnetv2_jax.weights.model_card import Origin, write_model_card
from effnetv2_jax.weights.networks import Counterpart, NoCounterpartError, counterpart

Target = Literal["timm", "torchvision", "keras", "effnetv2_jax"]


def save_pretrained(
    folder: str | os.PathLike[str],
    model: Model,
    variables: Mapping[str, Any],
    *,
    library: Target = "timm",
    license: str | None = None,
    datasets: Sequence[str] = (),
    metrics: Mapping[str, float] | None = None,
) -> Path:
    """Writes weights so that another library can load them, or `load_pretrained(None, folder)`.

    `timm` gives `model.safetensors` and `config.json`, the format of the Hub: upload the folder
    with `hf upload OWNER/REPO FOLDER` for `hub:OWNER/REPO`, or load it with
    `timm.create_model("local-dir:FOLDER")`, for any number of input channels. `torchvision` gives
    `model.safetensors`, a state dict for a model with `padding="symmetric"`. `keras` gives
    `model.keras`. `effnetv2_jax` is our own format, for a model of any family: `model.safetensors`,
    whose arrays are called `<collection>/<modules>/<name>`, and `config.json`. Each also gets
    `README.md`, a model card for the Hub.

    Args:
      folder: made if it is missing; files in it of the same names are replaced.
      model: its `preprocessing` and `class_names` are written to `config.json`.
      variables: `params` and the model's other collections.
      library: for which.
      license, datasets, metrics: for the card, in the Hub's words: `apache-2.0`; `imagenet-1k` or
        `OWNER/NAME`; `{"accuracy": 0.83}`, measured on the last of the data sets.

    Raises:
      WeightsError: the library has no such network, which names the field that it cannot express;
        the variables are not the model's, or not finite; or the classes' names are not as many as
        the classes, or empty or alike. Nothing is written then.
    """
    if library not in get_args(Target):
        raise WeightsError(f"library must be one of {get_args(Target)}, not {library!r}")
    if gives_features(model):
        raise WeightsError("load the model without features_only to save it")
    _check_class_names(model)
    for name, value in (metrics or {}).items():
        if not math.isfinite(value):
            raise WeightsError(f"metrics has {name}={value}, which is not finite")
    folder, origin = Path(folder).expanduser(), Origin(license, datasets, metrics)
    if library == OWN:
        _write_arrays(folder, to_own(model, variables))
        write_own_card(folder / CONFIG, model)
        write_model_card(folder, model, library, None, origin)
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
    write_model_card(folder, model, library, known, origin)
    return folder


def _check_class_names(model: Model) -> None:
    names = model.class_names
    if names is None:
        return
    if len(names) != model.num_classes:
        raise WeightsError(f"there are {len(names)} class names for {model.num_classes} classes")
    for place, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise WeightsError(f"class {place} has the name {name!r}; state one that can be read")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise WeightsError(
                f"class {place} has the name {name!r}, which is not Unicode; rename it"
            ) from None
    seen: dict[str, int] = {}
    for place, name in enumerate(names):
        # Of ImageNet's some are alike, such as the bird and the machine that are called crane.
        if seen.setdefault(name, place) != place and not _of_imagenet(names):
            raise WeightsError(
                f"classes {seen[name]} and {place} have the same name {name!r}; rename one"
            )


def _of_imagenet(names: tuple[str, ...]) -> bool:
    return any(names == imagenet(which) for which in get_args(Which))


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
    channels = model.config.input_channels
    if channels != 3 and name != "timm":
        raise WeightsError(
            f"{library.title} has no networks for {channels} channels (input_channels); "
            f"library='timm' or {OWN!r} saves it"
        )
    try:
        return library, counterpart(model.config, library)
    except NoCounterpartError as error:
        raise WeightsError(f"{error}; library={OWN!r} saves any model") from None
