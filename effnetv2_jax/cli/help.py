"""What `--help` prints: the flags, and every field of the config with its meaning and default."""

import dataclasses
import textwrap
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from absl import flags

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.config.fields import fields_of
from effnetv2_jax.config.optimizers import OPTIMIZERS
from effnetv2_jax.config.reading import CHOSEN, optional
from effnetv2_jax.config.schedules import SCHEDULES
from effnetv2_jax.models.registry import families

_WIDTH = 100


def help_text(description: str, values: flags.FlagValues) -> str:
    """The whole text.

    Args:
      description: of the program, which comes first.
      values: the flags besides those of the config.
    """
    lines = [description.strip(), "", "Flags:"]
    lines += entry(
        "--config=FILE",
        "The experiment: a Python file whose get_config() returns an Experiment, and after a colon "
        "its argument.",
    )
    forms = {"workdir": "=DIR", "mode": "=train | eval | plan | find_rate", "import": "=MODULE"}
    forms |= {"topology": "=DEVICES", "largest_batch": "", "scaling": ""}
    lines += [
        line
        for name, form in forms.items()
        for line in entry(f"--{name}{form}", str(values[name].help))
    ]
    lines += entry("--help, --version", "Print this text, or the version, and exit.")
    lines += ["", "Fields of the config, as --config.FIELD=VALUE, with their defaults:"]
    lines += _group(Experiment, "")
    return "\n".join(lines)


def _group(kind: type, path: str) -> Iterator[str]:
    """The fields of a dataclass, then those of the groups among them."""
    hints = typing.get_type_hints(kind)
    groups: dict[str, Any] = {}
    for field in fields_of(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            groups[field.name] = hint
            continue
        default = f" = {field.default}" if field.default else " (to be stated)"
        yield from entry(
            f"{path}{field.name}: {_kind(hint)}{default}", field.meaning.replace("`", "")
        )
        if row := _row(hint):
            groups[f"{field.name}[0]"] = row
    for name, group in groups.items():
        for title, chosen in _chosen(name, group):
            yield ""
            yield f"{path}{name}{title}: {(chosen.__doc__ or '').splitlines()[0]}"
            yield from _group(chosen, f"{path}{name}.")


def _chosen(name: str, group: type) -> Iterator[tuple[str, type]]:
    """The dataclasses that a group may be, with what chooses each."""
    if group not in CHOSEN.values():
        yield "", group
    elif name == "model":
        for family in families():
            yield f", of the family {family.name}", family.config
    else:
        kinds: Mapping[str, type] = OPTIMIZERS if name == "optimizer" else SCHEDULES
        for key, kind in kinds.items():
            yield f" with {name}.name={key}", kind


def _kind(hint: Any) -> str:
    """A type in few words: `float`, `same | symmetric`, `int | None`."""
    options = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(map(str, options))
    if optional(hint) is not None:
        return f"{_kind(optional(hint))} | None"
    if typing.get_origin(hint) is tuple:
        inner = ["..." if option is Ellipsis else _kind(option) for option in options]
        return f"({', '.join(inner)})"
    return str(getattr(hint, "__name__", hint))


def _row(hint: Any) -> type | None:
    """The dataclass of a table's rows; None for a field that is no table."""
    for option in (hint, *typing.get_args(hint)):
        arguments = typing.get_args(option)
        if typing.get_origin(option) is tuple and dataclasses.is_dataclass(arguments[0]):
            return typing.cast(type, arguments[0])
    return None


def entry(title: str, text: str) -> list[str]:
    """A flag or field, with its meaning indented below it, in lines."""
    indent = " " * 6
    wrapped = textwrap.wrap(
        " ".join(text.split()), _WIDTH, initial_indent=indent, subsequent_indent=indent
    )
    return [f"  {title}", *wrapped]
