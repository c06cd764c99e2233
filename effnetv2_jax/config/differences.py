"""In what two configs differ, and which of it a continued run may change."""

from collections.abc import Iterator, Mapping
from typing import Any

MAY_DIFFER = (
    "data.path",
    "data.eval_split",
    "data.threads",
    "data.processes",
    "data.prefetch_batches",
    "data.max_pixels",
    "data.max_unreadable",
    "evaluation.batch_size",
    "evaluation.every_epochs",
    "evaluation.sets",
    "checkpoint",
    "log",
    "faults",
    "distributed",
)
"""Fields, or groups of fields, that a continued run may change: they do not alter what is
trained. The number of devices and processes, which no field states, may change too."""


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Which fields of two configs differ, as `field: old -> new`, `MAY_DIFFER` left out."""
    old_fields, new_fields = dict(flatten(old)), dict(flatten(new))
    return [
        f"{name}: {old_fields.get(name, 'absent')!r} -> {new_fields.get(name, 'absent')!r}"
        for name in sorted(old_fields.keys() | new_fields.keys())
        if old_fields.get(name) != new_fields.get(name) and not may_differ(name)
    ]


def may_differ(name: str) -> bool:
    """Whether a continued run may change a field, named as `flatten` does."""
    return any(name == free or name.startswith((f"{free}.", f"{free}[")) for free in MAY_DIFFER)


def flatten(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested values, under names such as `data.mean[0]`."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from flatten(value, f"{path}.{name}" if path else str(name))
    elif isinstance(node, tuple | list):
        for index, value in enumerate(node):
            yield from flatten(value, f"{path}[{index}]")
    else:
        yield path, node
