"""The text of `--config.FIELD=TEXT` as a value of the field's type."""

import ast
import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any, Literal

from effnetv2_jax.cli.errors import CommandError
from effnetv2_jax.config.reading import optional

_NONE = ("none", "null")
_TRUTHS = {"true": True, "yes": True, "on": True, "1": True}
_TRUTHS |= {"false": False, "no": False, "off": False, "0": False}
_NAMES = {
    "none": None,
    "null": None,
    "true": True,
    "false": False,
    "inf": math.inf,
    "nan": math.nan,
}


def read_value(hint: Any, text: str, path: str) -> Any:
    """A value as the config is to hold it; whether it makes sense is for others to check.

    `none` and `null`, in any case, are None where the field may be None, and the empty text where
    it is a text. A field that has "none" among its options takes it for that.

    Args:
      hint: the field's type.
      text: what was stated.
      path: of the field, for the message.

    Raises:
      CommandError: the text is of no such type.
    """
    word, none = text.strip().lower(), is_none(text)
    some = optional(hint)
    kind = some or hint
    options = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        if none:
            return "none" if "none" in options else None if some else text
        return next((option for option in options if str(option).lower() == word), text)
    if none and (some or kind is str):
        return None if some else ""
    if kind is str:
        return text
    if kind is bool:
        if word in _TRUTHS:
            return _TRUTHS[word]
        raise CommandError(f"config.{path} must be true or false, not {text!r}")
    if (path, word) == ("batch_size", "auto"):
        return 0
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            if none:
                return None
            number = "a whole number" if kind is int else "a number"
            raise CommandError(f"config.{path} must be {number}, not {text!r}") from None
    found = read_tuple(text)
    of_rows = dataclasses.is_dataclass(options[0])
    if of_rows and not all(isinstance(row, Mapping) for row in found):
        raise CommandError(
            f"config.{path} must be a tuple of rows, each a dict of its fields, such as "
            f"\"({{'image_size': 128}}, {{'image_size': 192}})\", not {text!r}"
        )
    return found


def is_none(text: str | None) -> bool:
    """Whether a text stands for None."""
    return text is not None and text.strip().lower() in _NONE


def read_tuple(text: str) -> tuple[Any, ...]:
    """A tuple, as Python writes one, with or without brackets; words need no quotes."""
    if not text.strip():
        return ()
    try:
        value = _literal(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = tuple(part.strip() for part in text.split(","))
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _literal(text: str) -> Any:
    """Python's literal, in which a name is one of `_NAMES`, in any case, or a word."""
    tree = _Words().visit(ast.parse(text.strip(), mode="eval"))
    return ast.literal_eval(tree)


class _Words(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant(_NAMES.get(node.id.lower(), node.id))
