"""Labels that are written as text, as indices of classes."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from effnetv2_jax.data.record import DataError
from effnetv2_jax.data.sources.folder_layout import shown
from effnetv2_jax.data.sources.picture_folder import normal
from effnetv2_jax.system.text import some

_NAMED = 5
"""Places that a message names."""


class Entry(NamedTuple):
    """A picture with its labels as they are written."""

    place: str
    """Where they stand, in messages, such as `row 7`."""
    part: str
    """The split that it is of; empty where the data has none."""
    path: str
    """Names the picture, and decides whether it is held out."""
    labels: tuple[str, ...]


def in_order(names: Iterable[str]) -> list[str]:
    """Class names in alphabetical order; those that are all numbers in the order of numbers."""
    names = sorted(names)
    if all(name.isascii() and name.isdigit() for name in names):
        names.sort(key=int)
    return names


def classes_of(
    training: Iterable[Entry], *, num_classes: int | None, first_label: int
) -> tuple[str, ...]:
    """The classes, from the labels of the training examples.

    Labels that are all whole numbers, with `num_classes` stated, are places among so many classes,
    whose names are "0", "1", ...; others are names, in alphabetical order, or as numbers.

    Raises:
      DataError: there are no labels.
    """
    names = {normal(label) for entry in training for label in entry.labels}
    if not names:
        raise DataError("there are no labels")
    if num_classes is not None and all(_is_number(name) for name in names):
        return numbered(num_classes)
    if first_label:
        raise DataError(
            f"data.first_label is {first_label}, which counts labels that are numbers with "
            "data.num_classes stated; leave it out"
        )
    return tuple(in_order(names))


def numbered(count: int) -> tuple[str, ...]:
    """The names of classes that are known by number alone."""
    return tuple(map(str, range(count)))


def indices(
    entries: Sequence[Entry],
    class_names: Sequence[str],
    *,
    numbers: bool,
    first_label: int,
    column: str,
) -> list[tuple[int, ...]]:
    """The labels as indices into `class_names`, each once.

    Args:
      numbers: whether numbers that name no class are places among them.
      first_label: what the first class is written as, where classes are known by number.
      column: where labels stand, in messages.

    Raises:
      DataError: a label is none of the classes; the message names the first of them.
    """
    places = {normal(name): index for index, name in enumerate(class_names)}
    by_number = tuple(class_names) == numbered(len(class_names))

    def place(label: str) -> int | None:
        index = None if by_number else places.get(normal(label))
        if index is None and (by_number or numbers) and _is_number(label):
            index = int(label) - first_label
        return index if index is not None and 0 <= index < len(class_names) else None

    found: list[tuple[int, ...]] = []
    strange: list[str] = []
    for example in entries:
        its = [place(label) for label in example.labels]
        strange += [
            f"{example.place} has {shown(label)}"
            for label, index in zip(example.labels, its)
            if index is None
        ]
        found.append(tuple(dict.fromkeys(index for index in its if index is not None)))
    if strange:
        last = len(class_names) - 1 + first_label
        known = (
            f"{first_label} to {last} (data.num_classes, data.first_label)"
            if by_number
            else some(map(shown, class_names), 8)
        )
        raise DataError(
            f"{column} has labels that are none of the {len(class_names):,} classes: "
            f"{some(strange, _NAMED)}. The classes, those of training, are {known}"
        )
    return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
