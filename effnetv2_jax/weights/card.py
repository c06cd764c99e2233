"""`config.json`, which lies beside weights on the Hub: timm's, with some fields of our own."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.reading import model_config
from effnetv2_jax.models.libraries import Library, interchange_of, interchanges
from effnetv2_jax.models.protocol import Model, ModelConfig
from effnetv2_jax.models.registry import UnknownModelError, family_of, family_of_model
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.networks import Counterpart

OWN = "effnetv2_jax"
"""Our own format, and the key under which our own fields stand; timm passes over it."""


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
        names = _class_names(content)
        if (ours := content.get(OWN)) is not None:
            return _of_ours(ours, content, names, title)
        name, fields = _of_architecture(content.get("architecture"), title)
        preprocessing = _of_timm(content.get("pretrained_cfg") or {})
        return Card(name=name, fields=fields, preprocessing=preprocessing, class_names=names)
    except WeightsError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(f"{title}: {path.name} cannot be understood: {error}") from error


def write_card(path: Path, model: Model, library: Library, known: Counterpart) -> None:
    """Writes `config.json` for weights that a library can load.

    Args:
      known: what the library has for the model.
    """
    ours = {
        "library": library.name,
        "name": known.config.name,
        "fields": _beyond_the_name(known.config),
    }
    for_timm = {"architecture": known.name, "pretrained_cfg": _for_timm(model, library)}
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
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


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


def _of_architecture(theirs: str | None, title: str) -> tuple[str | None, dict[str, Any]]:
    """Our name for timm's `tf_efficientnetv2_s`, and how it computes."""
    if theirs is None:
        return None, {}
    for _, interchange in interchanges():
        timm = interchange.library("timm")
        if timm is not None and theirs in timm.models:
            config = timm.models[theirs]
            return config.name, {field: getattr(config, field) for field in config.NUMERICS}
    raise WeightsError(f"{title} has weights of {theirs}, a model that is not here")


def _beyond_the_name(config: ModelConfig) -> dict[str, Any]:
    """What decides how a network computes beside its name."""
    named = config.renamed(config.name).architecture()
    return {
        field: value
        for field, value in config.architecture().items()
        if field in config.NUMERICS or value != named[field]
    }


def _for_timm(model: Model, timm: Library) -> dict[str, Any]:
    interchange, preprocessing = interchange_of(family_of_model(model)), model.preprocessing
    assert interchange is not None, "the library is one of the family's"
    size, padding = preprocessing.image_size, preprocessing.crop_padding
    return {
        "input_size": [3, size, size],
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


def _of_timm(settings: Mapping[str, Any]) -> Preprocessing | None:
    if "input_size" not in settings:
        return None
    size = (settings.get("test_input_size") or settings["input_size"])[1]
    share = settings.get("test_crop_pct") or settings.get("crop_pct") or 1.0
    squash = settings.get("crop_mode") == "squash"
    return Preprocessing(
        image_size=size,
        crop_padding=None if squash else int(size / share) - size,
        interpolation=settings.get("interpolation", "bicubic"),
        antialias=True,
        mean=_triple(settings["mean"]),
        std=_triple(settings["std"]),
    )


def _triple(values: list[float]) -> tuple[float, float, float]:
    red, green, blue = (value * 255 for value in values)
    return red, green, blue


def _class_names(content: Mapping[str, Any]) -> tuple[str, ...] | None:
    settings = content.get("pretrained_cfg") or {}
    names = content.get("label_names") or settings.get("label_names")
    if not names:
        return None
    described = content.get("label_descriptions") or settings.get("label_descriptions")
    described = described if isinstance(described, dict) else {}
    return tuple(str(described.get(name, name)) for name in names)
