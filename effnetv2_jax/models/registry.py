"""The families of networks, by the names of their models.

A family of this package is one row of `_OWN`. One from elsewhere is registered by `register`, by an
entry point of the group `effnetv2_jax.families` that names its `Family`, or by a module that calls
`register` and that `--import=MODULE` names.
"""

import dataclasses
import difflib
import fnmatch
import functools
import importlib
import importlib.metadata
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from effnetv2_jax.models.protocol import Family, Model, ModelConfig

ENTRY_POINTS = "effnetv2_jax.families"

_OWN = {
    "efficientnet": "effnetv2_jax.models.efficientnet",
    "resnet": "effnetv2_jax.models.resnet",
    "vit": "effnetv2_jax.models.vit",
}
"""Modules with a `FAMILY`, imported when they are needed."""

_families: dict[str, Family] = {}
_not_scanned = [True]
"""Emptied when our own families and those of entry points are looked for, once."""

_log = logging.getLogger(__name__)


class UnknownModelError(ValueError):
    """No registered family has a model of that name; the message has the closest ones."""


def register(family: Family) -> Family:
    """Adds a family from outside of this package; to register the same one again changes nothing.

    Raises:
      ValueError: another family has its name, or a model of one of its names.
    """
    _scan()
    _add(family)
    return family


def families() -> Iterator[Family]:
    """Yields every family that there is: our own, those of entry points, registered ones.

    One that cannot be imported is logged and left out.
    """
    _scan()
    yield from list(_families.values())


def _add(family: Family) -> None:
    for other in _families.values():
        if other is family:
            return
        if other.name == family.name:
            raise ValueError(f"there is a family {family.name!r} already")
        if taken := sorted(set(other.variants) & set(family.variants)):
            raise ValueError(f"the family {other.name!r} has models of the names {taken}")
    _families[family.name] = family


def _scan() -> None:
    """Adds our own families and those of entry points, at the first call."""
    if not _not_scanned:
        return
    _not_scanned.clear()  # Before the modules, which may register families themselves.
    for name, module in _OWN.items():
        _load(name, functools.partial(_family_in, module))
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        _load(point.name, point.load)


def _family_in(module: str) -> Family:
    family: Family = importlib.import_module(module).FAMILY
    return family


def _load(name: str, load: Callable[[], Family]) -> None:
    try:
        _add(load())
    except Exception as error:  # A family of somebody else's may raise anything.
        _log.warning("the family %s cannot be used: %r", name, error)


def family_of(name: str) -> Family:
    """The family that has a model of that name.

    Raises:
      UnknownModelError: there is none; the message lists the names and the closest one.
    """
    known: list[str] = []
    for family in families():
        if name in family.variants:
            return family
        known += family.variants
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.3)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    raise UnknownModelError(
        f"unknown model {name!r}{hint} Known models: {', '.join(known)}. A family from elsewhere "
        "has to be imported first (--import=MODULE)"
    )


def list_models(pattern: str = "*") -> list[str]:
    """The names that `create_model` knows.

    Args:
      pattern: those that match it, such as `efficientnetv2*`; case matters.
    """
    names = [name for family in families() for name in family.variants]
    return fnmatch.filter(names, pattern) if pattern != "*" else names


def create_model(name: str, *, num_classes: int = 1000, **overrides: Any) -> Any:
    """A model as a Flax Linen module.

    Args:
      name: one of `list_models()`, such as "efficientnetv2-s".
      num_classes: number of logits; 0 for pooled features in place of logits.
      **overrides: fields of the family's config, such as `width`, `depth`, `stages`, `bn_momentum`,
        `input_channels` or `dtype`, and any other field of the module, such as `dropout_rate` or
        `features_only`.

    Raises:
      ValueError: unknown name; the message has the known ones and the closest.
      TypeError: the model has no such field.
    """
    return model_of(family_of(name).config(name=name), num_classes=num_classes, **overrides)


def model_of(config: ModelConfig, *, num_classes: int, **overrides: Any) -> Any:
    """The module of a config; see `create_model`."""
    family = family_of(config.name)
    if "dtype" in overrides:
        overrides["dtype"] = dtype_name(overrides["dtype"])
    of_config = {field.name for field in dataclasses.fields(config)} & overrides.keys()
    config = dataclasses.replace(config, **{field: overrides.pop(field) for field in of_config})
    if faults := list(config.faults()):
        raise ValueError(f"{config.name}: {faults[0]}")
    own = family.variants[config.name].for_channels(config.input_channels)
    fields = {"preprocessing": own} | overrides
    if fields["preprocessing"].channels != config.input_channels:
        raise ValueError(
            f"{config.name}: preprocessing has mean and std for {fields['preprocessing'].channels} "
            f"channels, and input_channels is {config.input_channels}; "
            "preprocessing.for_channels(...) adapts them"
        )
    return family.build(config, num_classes=num_classes, **fields)


def dtype_name(dtype: Any) -> str:
    """`bfloat16` for `jnp.bfloat16`, and likewise for others."""
    return dtype if isinstance(dtype, str) else np.dtype(dtype).name


def family_of_model(model: Model) -> Family:
    """The family that a module was built by."""
    return family_of(model.config.name)
