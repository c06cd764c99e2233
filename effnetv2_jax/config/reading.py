"""An experiment as a ConfigDict, which the command line can override, and back.

Nothing else in the package sees a ConfigDict, so a field that is unknown or has the wrong type is
an error before anything starts.
"""

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

import ml_collections
import numpy as np

from effnetv2_jax.config.checks import check
from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.config.optimizers import OPTIMIZERS, OptimizerConfig
from effnetv2_jax.config.schedules import SCHEDULES, ScheduleConfig
from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.models.registry import UnknownModelError, family_of


class UnknownFieldError(ConfigError):
    """A config states a field that there is not; the message has the closest one."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def _model_kind(name: str) -> type:
    try:
        return family_of(name).config
    except UnknownModelError as error:
        raise ConfigError(f"config.model.name: {error}") from None


def _kind_in(group: str, kinds: Mapping[str, type]) -> Callable[[str], type]:
    def find(name: str) -> type:
        if name not in kinds:
            raise ConfigError(f"config.{group}.name must be one of {tuple(kinds)}, not {name!r}")
        return kinds[name]

    return find


_CHOICES: dict[type, Callable[[str], type]] = {
    ModelConfig: _model_kind,
    OptimizerConfig: _kind_in("optimizer", OPTIMIZERS),
    ScheduleConfig: _kind_in("schedule", SCHEDULES),
}
"""Dataclasses of which `name` chooses a subclass."""

_LARGEST = float(np.finfo(np.float32).max)

CHOSEN = {"model": ModelConfig, "optimizer": OptimizerConfig, "schedule": ScheduleConfig}
"""The fields of an experiment that hold one."""


def kind_of(group: str, name: str) -> type:
    """The dataclass that a name chooses for `model`, `optimizer` or `schedule`.

    Raises:
      ConfigError: there is none of that name.
    """
    return _CHOICES[CHOSEN[group]](name)


def defaults_of(group: str, name: str) -> ml_collections.ConfigDict:
    """Of that dataclass; fields without a default are None, and have to be stated."""
    kind = kind_of(group, name)
    hints = typing.get_type_hints(kind)
    config = ml_collections.ConfigDict()
    for field in dataclasses.fields(kind):
        if field.name == "name":
            config.name = name
        elif field.default is dataclasses.MISSING:
            runtime = _runtime_type(hints[field.name])
            config[field.name] = ml_collections.config_dict.placeholder(runtime)
        else:
            _put(config, field.name, hints[field.name], field.default)
    config.lock()
    return config


def to_config_dict(node: Any) -> ml_collections.ConfigDict:
    """An experiment, or a part of one, as a ConfigDict, whose fields can be overridden."""
    config = ml_collections.ConfigDict()
    hints = typing.get_type_hints(type(node))
    for field in dataclasses.fields(node):
        _put(config, field.name, hints[field.name], getattr(node, field.name))
    config.lock()
    return config


def _put(config: ml_collections.ConfigDict, name: str, hint: Any, value: Any) -> None:
    if dataclasses.is_dataclass(value):
        config[name] = to_config_dict(value)
    elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
        config[name] = tuple(map(to_config_dict, value))
    elif (kind := optional(hint)) is not None:
        # A placeholder lets an override give an optional field a value, and take it back.
        config[name] = ml_collections.config_dict.placeholder(_runtime_type(kind))
        config[name] = value
    else:
        # An int here would make ConfigDict refuse a fractional override.
        config[name] = float(value) if hint is float else value


def from_config_dict(config: Mapping[str, Any] | ml_collections.ConfigDict) -> Experiment:
    """Checks a config and returns it typed.

    Raises:
      ConfigError: a field is unknown, missing, of the wrong type or out of range.
    """
    experiment: Experiment = _parse(Experiment, config, "")
    check(experiment)
    return experiment


def model_config(config: Mapping[str, Any]) -> ModelConfig:
    """The model of a config, whatever its other fields are.

    Raises:
      ConfigError: it has no model, or one that no family here has.
    """
    if "model" not in config:
        raise ConfigError("config lacks the field 'model'")
    model: ModelConfig = _parse(ModelConfig, config["model"], "model")
    for fault in model.faults():
        raise ConfigError(f"config.model.{fault}")
    return model


def unknown_field(name: str, known: typing.Iterable[str], *, where: str = "config") -> str:
    """The message for a field that does not exist, with the closest one that does."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"its fields are {', '.join(known)}"
    return f"{where} has no field {name!r}; {hint}"


def hint_of(config: Any, path: str) -> Any:
    """The type of the field at a path, such as `stages[0].share`, of a config that has it."""
    kind: Any = Experiment
    for name, index in path_steps(path):
        kind = optional(kind) or kind
        if name:
            if kind in _CHOICES:
                kind = _CHOICES[kind](config["name"])
            kind, config = typing.get_type_hints(kind)[name], config[name]
        else:
            options = typing.get_args(kind)
            kind = options[0] if options[-1] is Ellipsis else options[int(index)]
            config = config[int(index)]
    return kind


def path_steps(path: str) -> list[tuple[str, str]]:
    """The names and the indices of a path; of each pair one is empty."""
    return re.findall(r"([^.\[\]]+)|\[(-?\d+)\]", path)


def optional(hint: Any) -> Any:
    """The type T of a hint `T | None`; None for any other hint."""
    if typing.get_origin(hint) not in (types.UnionType, typing.Union):
        return None
    (kind,) = set(typing.get_args(hint)) - {types.NoneType}
    return kind


def _runtime_type(kind: Any) -> type:
    """The type that values of a hint have: `str` for `Literal["a", "b"]`."""
    origin = typing.get_origin(kind)
    return type(typing.get_args(kind)[0]) if origin is Literal else origin or kind


def _parse(kind: Any, value: Any, path: str) -> Any:
    """Returns `value` as type `kind`, or raises a ConfigError that names `path`."""
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, value, path)
    if (some := optional(kind)) is not None:
        return None if value is None else _parse(some, value, path)
    if value is None:
        name = "text" if typing.get_origin(kind) is Literal else getattr(kind, "__name__", kind)
        raise ConfigError(
            f"config.{path} must be {name}, not None; state it, as in --config.{path}=VALUE"
        )
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in options:
            raise ConfigError(f"config.{path} must be one of {options}, not {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, tuple | list):
            raise ConfigError(f"config.{path} must be a tuple, not {value!r}")
        if options[-1] is Ellipsis:
            kinds = [options[0]] * len(value)
        elif len(value) == len(options):
            kinds = list(options)
        else:
            raise ConfigError(f"config.{path} must have {len(options)} entries, not {value!r}")
        return tuple(_parse(k, v, f"{path}[{i}]") for i, (k, v) in enumerate(zip(kinds, value)))
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.nan
        if not abs(number) <= _LARGEST:  # Nor may it be NaN.
            raise ConfigError(f"config.{path} must be a finite number of float32, not {value!r}")
        return number
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"config.{path} must be {kind.__name__}, not {value!r}")
    return value


def _parse_dataclass(kind: Any, value: Any, path: str) -> Any:
    where = f"config.{path}" if path else "config"
    if isinstance(value, ml_collections.ConfigDict):
        value = {name: value[name] for name in value}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} must hold the fields of {kind.__name__}, not {value!r}")
    if kind in _CHOICES:
        if not isinstance(value.get("name"), str):
            raise ConfigError(f"{where}.name must be stated, and a string")
        kind = _CHOICES[kind](value["name"])
    hints = typing.get_type_hints(kind)
    fields = [field.name for field in dataclasses.fields(kind)]
    for name in value:
        if name not in fields:
            raise UnknownFieldError(str(name), unknown_field(name, fields, where=where))
    for field in dataclasses.fields(kind):
        if field.name not in value and field.default is dataclasses.MISSING:
            raise ConfigError(f"{where} lacks the field {field.name!r}")
    prefix = f"{path}." if path else ""
    return kind(**{name: _parse(hints[name], item, prefix + name) for name, item in value.items()})
