"""What the dataclasses of a config say of their fields: type, default and meaning."""

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple


class Field(NamedTuple):
    """A field of a dataclass, as a help text shows it."""

    name: str
    default: str
    """As Python writes it; empty where it has to be stated."""
    meaning: str
    """The docstring below it, in one line."""


def fields_of(kind: type) -> list[Field]:
    """The fields of a dataclass; one that is defined anew keeps the docstring of its base."""
    meanings: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base):
            meanings |= _docstrings(base)
    return [
        Field(field.name, _default(field.default), meanings.get(field.name, ""))
        for field in dataclasses.fields(kind)
    ]


def _default(value: Any) -> str:
    if value is dataclasses.MISSING:
        return ""
    return f"{value:g}" if isinstance(value, float) else repr(value)


@functools.cache
def _docstrings(kind: type) -> Mapping[str, str]:
    """What stands below the fields that a class itself defines, by their names."""
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except (OSError, TypeError, SyntaxError):  # It may be of a family that has no file.
        return {}
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for statement, following in itertools.pairwise(definition.body):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                value=ast.Constant(value=str(text))
            ):
                found[name] = " ".join(text.split())
    return found
