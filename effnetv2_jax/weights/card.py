"""`config.json`, which lies beside weights on the Hub: timm's, with some fields of our own."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.reading import model_config
from effnetv2_jax.models.libraries import Library, interchange_of
from effnetv2_jax.models.protocol import Model, ModelConfig
from effnetv2_jax.models.registry import UnknownModelError, family_of, family_of_model
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.weights import timm_config
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.networks import Counterpart

OWN = "effnetv2_jax"
"""Our own format, and the key under which our own fields stand; timm passes over it."""

_SENSELESS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
"""What values of the wrong kind raise, wherever they are read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """What `config.json` says of the weights beside it."""

    name: str | None = None
    """Of the model."""
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Of the model's config, that decide what the weights compute."""
    config: ModelConfig | None = None
    """Of the model, whole; only in our own format."""
    num_classes: int | None = None
    """Likewise."""
    preprocessing: Preprocessing | None = None
    fault: str = ""
    """Why the preprocessing it states cannot be done here."""
    class_names: tuple[str, ...] | None = None
    library: str = "timm"
    """Whose names and format the weights beside it have."""


def read_card(path: Path, title: str) -> Card:
    """Reads a `config.json` of ours or of timm's.

    Raises:
      WeightsError: it is not JSON, or of a model that is not here.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = timm_config.class_names(content)
        if (ours := content.get(OWN)) is not None:
            return _of_ours(ours, content, names, title)
        name, fields = timm_config.network(content, title)
        card = Card(name=name, fields=fields, class_names=names)
    except WeightsError:
        raise
    except (OSError, *_SENSELESS) as error:
        raise WeightsError(f"{title}: {path.name} cannot be understood: {error}") from error
    try:
        return dataclasses.replace(card, preprocessing=timm_config.preprocessing(content))
    except _SENSELESS as error:
        return dataclasses.replace(card, fault=f"{path.name}: {error}")


def write_card(path: Path, model: Model, library: Library, known: Counterpart) -> None:
    """Writes `config.json` for weights that a library can load.

    Args:
      known: what the library has for the model.
    """
    channels = _channels_beyond_three(model)
    ours = {
        "library": library.name,
        "name": known.config.name,
        "fields": _beyond_the_name(known.config) | channels,
    }
    for_timm = {"architecture": known.name, "pretrained_cfg": _for_timm(model, library)}
    if channels:
        for_timm["model_args"] = {"in_chans": model.config.input_channels}
    _write(path, model, ours, for_timm if library.name == "timm" else {})


def write_own_card(path: Path, model: Model) -> None:
    """Writes `config.json` for weights in our own format."""
    family = family_of_model(model).name
    ours = {"library": OWN, "family": family, "model": dataclasses.asdict(model.config)}
    _write(path, model, ours, {})


def _write(path: Path, model: Model, ours: dict[str, Any], more: dict[str, Any]) -> None:
    ours["preprocessing"] = dataclasses.asdict(model.preprocessing)
    content: dict[str, Any] = {"num_classes": model.num_classes, OWN: ours, **more}
    if model.class_names is not None:
        content["label_names"] = list(model.class_names)
    text = json.dumps(content, indent=2, default=dataclasses.asdict)  # Of rows of a table.
    path.write_text(text + "\n", encoding="utf-8")


def unknown_model(title: str, name: str, *, family: str | None, module: str | None) -> WeightsError:
    """The error for weights of a model that no registered family has.

    Args:
      family: the name of its family, if that is known.
      module: the one it was from when the weights were trained, if that is known.
    """
    of_family = f" of the family {family!r}" if family else ""
    of_module = f" from the module {module}" if module else ""
    return WeightsError(
        f"{title} has weights of {name!r}, a model{of_family}{of_module} that is not here; import "
        f"the module that registers it first (--import={module or 'MODULE'})"
    )


def _of_ours(
    ours: Mapping[str, Any],
    content: Mapping[str, Any],
    class_names: tuple[str, ...] | None,
    title: str,
) -> Card:
    own = ours["library"] == OWN
    name = ours["model"]["name"] if own else ours["name"]
    try:
        family_of(name)
    except UnknownModelError:
        raise unknown_model(title, name, family=ours.get("family"), module=None) from None
    try:
        config = model_config({"model": ours["model"] if own else {"name": name, **ours["fields"]}})
    except ConfigError as error:
        raise WeightsError(f"{title}: {error}") from error
    return Card(
        name=name,
        fields={} if own else {field: getattr(config, field) for field in ours["fields"]},
        config=config if own else None,
        num_classes=int(content["num_classes"]) if own else None,
        preprocessing=Preprocessing.from_json(ours["preprocessing"]),
        class_names=class_names,
        library=ours["library"],
    )


def _beyond_the_name(config: ModelConfig) -> dict[str, Any]:
    """What decides how a network computes beside its name."""
    named = config.renamed(config.name).architecture()
    return {
        field: value
        for field, value in config.architecture().items()
        if field in config.NUMERICS or value != named[field]
    }


def _channels_beyond_three(model: Model) -> dict[str, int]:
    """The field of the config, for another number of channels than RGB's."""
    channels = model.config.input_channels
    return {} if channels == 3 else {"input_channels": channels}


def _for_timm(model: Model, timm: Library) -> dict[str, Any]:
    interchange, preprocessing = interchange_of(family_of_model(model)), model.preprocessing
    assert interchange is not None, "the library is one of the family's"
    size, padding = preprocessing.image_size, preprocessing.crop_padding
    return {
        "input_size": [preprocessing.channels, size, size],
        "fixed_input_size": False,
        "interpolation": preprocessing.interpolation,
        "crop_pct": 1.0 if padding is None else size / (size + padding),
        "crop_mode": "squash" if padding is None else "center",
        "mean": [value / 255 for value in preprocessing.mean],
        "std": [value / 255 for value in preprocessing.std],
        "num_classes": model.num_classes,
        "first_conv": timm.layer_name(next(interchange.layers(model))),
        "classifier": timm.classifier,
    }
