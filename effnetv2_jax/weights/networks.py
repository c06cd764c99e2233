"""Whether two configs, or a config and a library's network, are the same network."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from effnetv2_jax.models.libraries import Library
from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.weights.errors import WeightsError


class DifferingField(NamedTuple):
    """A field in which two networks differ."""

    path: str
    """Of the config, as in `stages[3].operator`."""
    one: str
    """The one's value, as Python writes it; of a table, its length."""
    other: str


def differing_fields(one: ModelConfig, other: ModelConfig) -> list[DifferingField]:
    """In what two networks differ that decides which weights fit and what they compute."""
    if type(one) is not type(other):
        return [DifferingField("name", repr(one.name), repr(other.name))]
    if one.written_out().architecture() == other.written_out().architecture():
        return []
    return list(_differing("", one.architecture(), other.architecture()))


def check_same_network(title: str, theirs: ModelConfig, ours: ModelConfig) -> None:
    """Raises a WeightsError that names the field if weights are for another network.

    Args:
      title: where the weights are.
      theirs: the config of the network that they are for.
      ours: of the model that is to take them.
    """
    for field, one, other in differing_fields(theirs, ours)[:1]:
        raise WeightsError(
            f"{title} has weights for {field}={one}, but the model has {other}; set {field} (in a "
            f"config, config.model.{field}) to that"
        )


def stated_fields(config: ModelConfig) -> dict[str, Any]:
    """In what a library's network differs from the one of its name, and how it computes."""
    computes = config.resolved()
    return config.stated() | {field: getattr(computes, field) for field in config.NUMERICS}


class Counterpart(NamedTuple):
    """What a library has for a network."""

    name: str | None
    """Its name for it; None for a network that differs from all it has in `may_differ`."""
    config: ModelConfig
    """The library's network, with the fields in which it may differ."""


class NoCounterpartError(ValueError):
    """A library cannot express a network; the message names the field."""


def counterpart(config: ModelConfig, library: Library) -> Counterpart:
    """What a library has for a network.

    Raises:
      NoCounterpartError: nothing.
    """
    # Namesakes first: a ViT and a DeiT are the same network, with other preprocessing.
    for name, known in sorted(library.models.items(), key=lambda pair: pair[1].name != config.name):
        if not differing_fields(known, config):
            return Counterpart(name, known)
    namesakes = {name: known for name, known in library.models.items() if known.name == config.name}
    if not namesakes:
        names = dict.fromkeys(known.name for known in library.models.values())
        raise NoCounterpartError(f"{library.title} has no {config.name}; it has {', '.join(names)}")
    whole = config.resolved()
    free = {field: getattr(whole, field) for field in library.may_differ}
    faults = []
    for name, known in namesakes.items():
        adapted = dataclasses.replace(known, **free)
        found = differing_fields(adapted, config)
        if not found:
            return Counterpart(None, adapted)
        faults.append((name, found))
    name, found = min(faults, key=lambda pair: len(pair[1]))
    told = "; ".join(
        f"model.{field} is {ours}, but its {name} has {theirs}" for field, theirs, ours in found[:3]
    )
    raise NoCounterpartError(f"{library.title} has no such network: {told}")


def _differing(path: str, one: Any, other: Any) -> Iterator[DifferingField]:
    if dataclasses.is_dataclass(one) and type(one) is type(other):
        one, other = dataclasses.asdict(one), dataclasses.asdict(other)  # type: ignore[arg-type]
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in {**one, **other}:
            yield from _differing(
                f"{path}.{name}" if path else name, one.get(name), other.get(name)
            )
    elif isinstance(one, tuple) and isinstance(other, tuple):
        if len(one) != len(other):
            yield DifferingField(path, f"of length {len(one)}", f"of length {len(other)}")
        for index, pair in enumerate(zip(one, other)):
            yield from _differing(f"{path}[{index}]", *pair)
    elif one != other:
        yield DifferingField(path, repr(one), repr(other))
