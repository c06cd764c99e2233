"""What `--config.FIELD=VALUE` means where a plain assignment would not do.

Three groups of fields are chosen by a name: `model`, `optimizer` and `schedule`. A table, such as
`model.stages`, may be stated as a whole or reached into. Weights of a run bring its network along.
"""

import dataclasses
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import ml_collections

from effnetv2_jax.cli.errors import CommandError
from effnetv2_jax.cli.suggestions import unknown
from effnetv2_jax.cli.values import is_none, read_value
from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.config.reading import (
    CHOSEN,
    defaults_of,
    hint_of,
    kind_of,
    model_config,
    path_steps,
    to_config_dict,
)
from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.models.registry import family_of
from effnetv2_jax.weights.networks import DifferingField, differing_fields
from effnetv2_jax.weights.run_config import network_of

_OVERRIDE = re.compile(r"--?(no)?config\.([^=]+)(?:=(.*))?", re.DOTALL)
_PATH = re.compile(r"[^.\[\]]+(\.[^.\[\]]+|\[-?\d+\])*")


class Override(NamedTuple):
    """A field that the command line states."""

    path: str
    """Such as `model.stages[3].operator`."""
    value: str | None
    """None where the flag has none, as in `--config.augment.flip`."""

    @property
    def group(self) -> str:
        """The first part of the path."""
        return re.split(r"[.\[]", self.path, maxsplit=1)[0]


def read_overrides(arguments: Sequence[str]) -> list[Override]:
    """The overrides among the arguments, in their order."""
    found = (_OVERRIDE.fullmatch(argument) for argument in arguments)
    return [
        Override(match[2], "false" if match[1] and match[3] is None else match[3])
        for match in found
        if match
    ]


def adapt(
    config: ml_collections.ConfigDict, overrides: Sequence[Override], *, shortened: bool
) -> Iterator[str]:
    """Gives a config the fields that the overrides are about; yields what it did, in sentences.

    Args:
      config: as its file has it; changed in place.
      overrides: of the command line.
      shortened: whether the config is that of a `:smoke` run, so that another network has to be
        made thin as well.

    Raises:
      CommandError: two overrides exclude each other, or a path leads nowhere.
      ConfigError: a name is unknown.
      WeightsError: the run to start from cannot be read.
    """
    stated = {override.path: override.value for override in overrides}
    _refuse_parts_beside_a_whole(overrides)
    yield from _take_network_of_run(config, stated)
    for group in CHOSEN:
        name = stated.get(f"{group}.name")
        if group in config and name is not None and name != config[group].name:
            yield from _rename(config, group, name, stated, shortened=shortened)
    if not is_none(stated.get("model.stages", "none")) and not shortened:
        yield from _take_as_it_stands(config, stated)
    parts = (re.match(r"model\.(\w+)\[", override.path) for override in overrides)
    if any(match and config.model.get(match[1], ()) is None for match in parts):
        _put(config, "model", to_config_dict(_model(config).written_out()))
    for override in overrides:
        check_path(config, override.path)


def assign(config: ml_collections.ConfigDict, overrides: Sequence[Override]) -> None:
    """Sets the fields to what the overrides state, in their order.

    Args:
      config: has been adapted to them; changed in place.

    Raises:
      CommandError: a value is missing or not of the field's type.
    """
    for path, text in overrides:
        parents, name, places = _split(path)
        node: Any = config
        for step in parents:
            node = node[step]
        old = node[name]
        for place in places:
            old = old[place]
        if isinstance(old, ml_collections.ConfigDict):
            by = f"name={text}" if path in CHOSEN else f"{next(iter(old))}=..."
            raise CommandError(f"config.{path} is a group of fields; state --config.{path}.{by}")
        hint = hint_of(config, path)
        if text is None and hint is not bool:
            raise CommandError(f"config.{path} lacks its value: --config.{path}=VALUE")
        value = read_value(hint, "true" if text is None else text, path)
        with node.ignore_type():
            node[name] = _with_entry(node[name], places, value)


def _split(path: str) -> tuple[list[str | int], str, list[int]]:
    """What leads to the last name, that name, and the indices behind it."""
    steps = [name or int(index) for name, index in path_steps(path)]
    last = max(index for index, step in enumerate(steps) if isinstance(step, str))
    return steps[:last], str(steps[last]), [int(step) for step in steps[last + 1 :]]


def _with_entry(value: Any, places: Sequence[int], entry: Any) -> Any:
    """The nested tuples with another entry at a place in the place of theirs."""
    if not places:
        return entry
    entries = list(value)
    entries[places[0]] = _with_entry(entries[places[0]], places[1:], entry)
    return tuple(entries)


def check_network(
    experiment: Experiment,
    stated: Sequence[Override],
    own: ModelConfig | None,
    *,
    title: str,
    adapted: bool = False,
) -> None:
    """Raises a ConfigError if the command line states another network than a run has.

    Args:
      experiment: with the overrides.
      stated: the overrides.
      own: the run's network; None if it is not known.
      title: of the run.
      adapted: whether its weights are adapted to other input channels.
    """
    model = experiment.model
    if own is None or not any(override.group == "model" for override in stated):
        return
    differing = differing_fields(own, model)
    if own.input_channels != model.input_channels and not adapted:
        channels = (str(each.input_channels) for each in (own, model))
        differing = [DifferingField("input_channels", *channels)]
    if model.name != own.name and any(override.path == "model.name" for override in stated):
        differing = [DifferingField("name", repr(own.name), repr(model.name))]
    for path, there, here in differing[:1]:
        raise ConfigError(
            f"config.model.{path} is {here}, but {title} has {there}; leave it out, or start from "
            "other weights"
        )


def check_path(config: ml_collections.ConfigDict, path: str) -> None:
    """Raises a CommandError that names the closest field if `path` leads nowhere."""
    if not _PATH.fullmatch(path):
        raise CommandError(
            f"config.{path} is no field; fields are written as in --config.epochs=10 or "
            "--config.stages[0].image_size=96"
        )
    node: Any = config
    where = "config"
    for name, index in path_steps(path):
        if name:
            known = list(node.keys()) if isinstance(node, ml_collections.ConfigDict) else []
            if isinstance(node, tuple) and node:
                raise CommandError(
                    f"{where} has entries, such as {where}[0], and no field {name!r}"
                )
            if not known:
                raise CommandError(f"{where} is no group of fields, and so has no {name!r}")
            if name not in known:
                raise CommandError(unknown(config, name, where=where, known=known))
            node, where = node[name], f"{where}.{name}"
        else:
            count = len(node) if isinstance(node, tuple | list) else 0
            if not -count <= int(index) < count:
                raise CommandError(f"{where} has {count or 'no'} entries, and so no [{index}]")
            node, where = node[int(index)], f"{where}[{index}]"


def _refuse_parts_beside_a_whole(overrides: Sequence[Override]) -> None:
    paths = [override.path for override in overrides]
    for whole in paths:
        part = next((path for path in paths if path.startswith(f"{whole}[")), None)
        if part is not None:
            raise CommandError(
                f"config.{part} and config.{whole} are both stated, and one would undo the other; "
                f"state all of it in config.{whole}, or its parts alone"
            )


def _take_network_of_run(
    config: ml_collections.ConfigDict, stated: dict[str, str | None]
) -> Iterator[str]:
    """The network of the run that `init` names, where it names one."""
    init = stated.get("init", config.get("init"))
    own = network_of(init) if init else None
    if own is None or "model" not in config:
        return
    recipes = _model(config)
    if type(own) is type(recipes):
        fields = ("name", *own.FOLLOW_NAME, *own.NUMERICS)
        own = dataclasses.replace(recipes, **{field: getattr(own, field) for field in fields})
    if own.settled() == recipes.settled():
        return
    _put(config, "model", to_config_dict(own))
    yield f"config.init={init}: the network is that of the run, {_words(own)}"


def _take_as_it_stands(config: ml_collections.ConfigDict, stated: Collection[str]) -> Iterator[str]:
    """A whole table is not scaled by what the config file states for another."""
    scales = [
        field
        for field in ("width", "depth")
        if config.model.get(field) is not None and f"model.{field}" not in stated
    ]
    for field in scales:
        config.model[field] = None
    if scales:
        yield (
            f"config.model.stages is taken as it stands: {' and '.join(scales)} of the config file "
            "do not apply to it"
        )


def _rename(
    config: ml_collections.ConfigDict,
    group: str,
    name: str,
    stated: Collection[str],
    *,
    shortened: bool,
) -> Iterator[str]:
    def is_stated(field: str) -> bool:
        return f"{group}.{field}" in stated

    old = config[group]
    if kind_of(group, name) is not kind_of(group, old.name):
        new = defaults_of(group, name)
        kept = {"dtype": old.dtype} if group == "model" else {}
        new.update(kept)
        values = ", ".join(
            f"{field}={value!r}"
            for field, value in new.items()
            if field not in kept and not is_stated(field) and value is not None
        )
        yield (
            f"config.{group}.name={name}: its own defaults take the place of {old.name}'s fields: "
            f"{values or 'none'}"
        )
    elif group == "model":
        model = _model(config)
        lost = [
            field
            for field in model.FOLLOW_NAME
            if getattr(model, field) is not None and not is_stated(field)
        ]
        new = to_config_dict(model.renamed(name))
        if lost and not shortened:
            yield f"config.model.name={name}: {', '.join(lost)} follow from it"
    else:
        return
    _put(config, group, new)
    if group == "model" and shortened:
        _put(config, group, to_config_dict(family_of(name).thin(_model(config))))


def _model(config: ml_collections.ConfigDict) -> ModelConfig:
    return model_config({"model": config.model})


def _words(model: ModelConfig) -> str:
    fields = {field: getattr(model, field) for field in model.FOLLOW_NAME}
    stated = (
        f"a table of its own in {field}" if isinstance(value, tuple) else f"{field}={value!r}"
        for field, value in fields.items()
        if value is not None
    )
    return ", ".join([model.name, *stated])


def _put(config: ml_collections.ConfigDict, group: str, value: ml_collections.ConfigDict) -> None:
    with config.unlocked():
        config[group] = value
