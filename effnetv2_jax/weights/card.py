"""`config.json`, which lies beside weights on the Hub: timm's, with some fields of our own."""

import dataclasses
import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from effnetv2_jax.models.efficientnet.model import EfficientNet
from effnetv2_jax.models.efficientnet.published import PYTORCH, TENSORFLOW, architecture
from effnetv2_jax.models.efficientnet.variants import VARIANTS
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.weights.errors import WeightsError

FIELDS = ("width", "depth", "padding", "bn_epsilon")
"""Of the model, which decide what weights compute beside the model's name."""

_OURS = "effnetv2_jax"
"""The key under which our own fields stand; timm passes over it."""


class Card(NamedTuple):
    """What `config.json` says of the weights beside it."""

    name: str | None = None
    fields: Mapping[str, Any] = types.MappingProxyType({})
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
        ours = content.get(_OURS)
        names = _class_names(content)
        if ours is not None:
            preprocessing = Preprocessing.from_json(ours["preprocessing"])
            return Card(ours["name"], ours["fields"], preprocessing, names, ours["library"])
        name, fields = _of_architecture(content.get("architecture"), title)
        return Card(name, fields, _of_timm(content.get("pretrained_cfg") or {}), names)
    except WeightsError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(f"{title}: {path.name} cannot be understood: {error}") from error


def write_card(path: Path, model: EfficientNet, *, library: str) -> None:
    """Writes `config.json` for weights that `library` can load."""
    name, fields = identify(model)
    content: dict[str, Any] = {
        "num_classes": model.num_classes,
        _OURS: {
            "name": name,
            "fields": fields,
            "preprocessing": dataclasses.asdict(model.preprocessing),
            "library": library,
        },
    }
    if library == "timm":
        variant = VARIANTS[name]
        published = (model.width, model.depth) == (variant.width, variant.depth)
        content["architecture"] = architecture(name, fields) if published else None
        content["pretrained_cfg"] = _for_timm(model)
    if model.class_names is not None:
        content["label_names"] = list(model.class_names)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def identify(model: EfficientNet) -> tuple[str, dict[str, Any]]:
    """A model's name, and its fields that decide what its weights compute.

    Raises:
      WeightsError: its stages are not those of any named model.
    """
    scale = (model.width, model.depth)
    like = [
        (name, variant)
        for name, variant in VARIANTS.items()
        if (variant.stages, variant.rounding_floor) == (model.stages, model.rounding_floor)
    ]
    if not like or model.head_features != EfficientNet.head_features:
        raise WeightsError("the model's stages are its own, so that weights could not name them")
    name, _ = next((pair for pair in like if (pair[1].width, pair[1].depth) == scale), like[0])
    return name, {field: getattr(model, field) for field in FIELDS}


def _of_architecture(theirs: str | None, title: str) -> tuple[str | None, dict[str, Any]]:
    """Our name for timm's `tf_efficientnetv2_s`, and how it computes."""
    if theirs is None:
        return None, {}
    for name in VARIANTS:
        for fields in (TENSORFLOW, PYTORCH):
            if architecture(name, fields) == theirs:
                return name, fields
    raise WeightsError(f"{title} has weights of {theirs}, a model that is not here")


def _for_timm(model: EfficientNet) -> dict[str, Any]:
    preprocessing = model.preprocessing
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
        "first_conv": "conv_stem",
        "classifier": "classifier",
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
