"""timm's `config.json`, read as timm reads it: which network, what of pictures, which classes."""

import math
import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

from effnetv2_jax.models.libraries import Library, timm_network
from effnetv2_jax.preprocessing import IMAGENET_MEAN, IMAGENET_STD, PerChannel, Preprocessing
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.networks import stated_fields

_SIZE, _CROP_PCT = (3, 224, 224), 0.875
"""With which timm fills in what a config leaves open, along with bicubic and ImageNet's mean."""

_INERT = {
    "num_classes",
    "img_size",
    "drop_rate",
    "drop_path_rate",
    "bn_momentum",
    "pretrained",
    "scriptable",
    "exportable",
    "no_jit",
    "checkpoint_path",
}
"""Arguments of timm's `create_model` that change nothing that trained weights compute."""


_MOST_CLASSES = 1_000_000


class Network(NamedTuple):
    """A network of timm's in our words."""

    name: str | None
    fields: Mapping[str, Any]
    """Of its config, that the name does not say."""


def network(content: Mapping[str, Any], title: str) -> Network:
    """Which network a config is for.

    Raises:
      WeightsError: one that is not here, or with arguments that are not.
    """
    theirs = content.get("architecture") or _settings(content).get("architecture")
    if theirs is None:
        return Network(None, {})
    if (known := timm_network(str(theirs))) is None:
        raise WeightsError(f"{title} has weights of {theirs}, a model that is not here")
    timm, config = known
    fields = _of_arguments(content.get("model_args") or {}, timm, title)
    if (channels := _channels(content)) != 3:
        fields["input_channels"] = channels
    return Network(config.name, stated_fields(config) | fields)


def preprocessing(content: Mapping[str, Any]) -> Preprocessing | None:
    """What evaluation does to pictures, at the size for tests; None if the config is not timm's.

    Raises:
      ValueError: it does what we cannot; the message names the field.
    """
    settings = _settings(content)
    if "architecture" not in content and not {"input_size", "mean", "architecture"} & set(settings):
        return None
    size = settings.get("input_size") or _SIZE
    if not settings.get("fixed_input_size"):
        size = settings.get("test_input_size") or size
    _, height, width = map(operator.index, size)
    if height != width:
        raise ValueError(f"input_size is {list(size)}, and images are square here")
    share = float(settings.get("test_crop_pct") or settings.get("crop_pct") or _CROP_PCT)
    resized = math.floor(height / share)
    channels = _channels(content)
    mode = settings.get("crop_mode") or "center"
    if mode not in ("center", "squash") or (mode == "squash" and resized != height):
        cut = f" with crop_pct={share}" if mode == "squash" else ""
        raise ValueError(f"crop_mode is {mode!r}{cut}, which is not here")
    return Preprocessing(
        image_size=height,
        crop_padding=None if mode == "squash" else resized - height,
        interpolation=settings.get("interpolation") or "bicubic",
        antialias=True,
        mean=_grey_levels(settings.get("mean"), channels) or IMAGENET_MEAN,
        std=_grey_levels(settings.get("std"), channels) or IMAGENET_STD,
    ).for_channels(channels)


def class_names(content: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of the classes in the order of their labels; None where there are none.

    Raises:
      ValueError: their labels are not whole numbers from 0.
    """
    settings = _settings(content)

    def stated(key: str) -> Any:
        return content.get(key) or settings.get(key)

    names = stated("label_names") or stated("labels")
    if not names:
        return None
    if isinstance(names, Mapping):
        by_label = {int(label): name for label, name in names.items()}
        count = max(max(by_label) + 1, int(stated("num_classes") or 0))
        if min(by_label) < 0 or len(by_label) < len(names) or count > _MOST_CLASSES:
            raise ValueError(f"label_names has the labels {', '.join(list(names)[:5])}, ...")
        # A label without a name is told as `predict` tells it.
        names = [by_label.get(label, f"class {label}") for label in range(count)]
    described = stated("label_descriptions")
    described = described if isinstance(described, Mapping) else {}
    return tuple(str(described.get(name) or name) for name in names)


def _settings(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the older form, which is flat, all of it."""
    return (content.get("pretrained_cfg") or {}) if "pretrained_cfg" in content else content


def _of_arguments(arguments: Mapping[str, Any], timm: Library, title: str) -> dict[str, Any]:
    """The fields of the config that arguments of `timm.create_model` state."""
    others = {
        name: value
        for name, value in arguments.items()
        if name not in _INERT and value is not None and name != "in_chans"
    }
    try:
        return timm.fields_of(others)
    except ValueError as error:
        raise WeightsError(
            f"{title} has weights of a network with {error}, which is not here"
        ) from None


def _channels(content: Mapping[str, Any]) -> int:
    """Of the images, as the arguments or else the size of the input state them."""
    stated = (content.get("model_args") or {}).get("in_chans")
    size = _settings(content).get("input_size") or _SIZE
    return operator.index(size[0] if stated is None else stated)


def _grey_levels(values: Any, channels: int) -> PerChannel | None:
    """Per channel, on the scale from 0 to 255."""
    if not values:
        return None
    if len(values) not in (1, 3, channels):
        raise ValueError(f"mean or std has {len(values)} values for {channels} channels")
    return tuple(value * 255 for value in (list(values) * channels if len(values) == 1 else values))
