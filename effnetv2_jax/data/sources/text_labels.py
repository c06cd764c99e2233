"""Takes a split of examples whose labels are known as text."""

from collections.abc import Sequence
from typing import NamedTuple

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data.record import DataError
from effnetv2_jax.data.sources.folder_layout import shown
from effnetv2_jax.data.sources.held_out import by_hash, choose_part, held_out
from effnetv2_jax.data.sources.label_names import Entry, classes_of, indices
from effnetv2_jax.data.sources.labelled import Example
from effnetv2_jax.data.sources.split_names import role_of
from effnetv2_jax.data.sources.splits import parse_split


class Taken(NamedTuple):
    """A split."""

    name: str
    """Of the source."""
    examples: list[Example]
    class_names: tuple[str, ...]
    available: int
    """Examples of the whole split."""
    chosen: list[int]
    """Which of those given each example was."""


def take_split(
    entries: Sequence[Entry],
    split: str,
    data: DataConfig,
    class_names: Sequence[str] | None,
    *,
    of: str,
) -> Taken:
    """The examples of a split, or of a slice of one, with labels as indices of classes.

    Args:
      entries: all examples of the data.
      split: a part's name or a synonym, or `all`; see `held_out.choose_part`. Where there is no
        part for evaluation, `data.validation_share` of every class is held out by the hash of the
        paths; of examples with several labels, of all together. A slice is a random sample.
      data: how labels are read; see `label_names.classes_of`.
      class_names: the classes in an order that is known already; None orders those of the training
        examples.
      of: the data, in messages.

    Raises:
      DataError: there is no such split, or it has no examples or strange labels.
    """
    wanted = parse_split(split)
    parts = list(dict.fromkeys(entry.part for entry in entries))
    part = choose_part(parts, wanted.name, of=of)
    numbers = [n for n, entry in enumerate(entries) if entry.part in part.names]
    known = class_names
    if known is None:
        train = [entry for entry in entries if role_of(entry.part) == "train"]
        training = train or [entries[n] for n in numbers]
        try:
            known = classes_of(training, num_classes=data.num_classes, first_label=data.first_label)
        except DataError as error:
            raise DataError(f"{of}: {error}") from None
    available = len(numbers)
    if part.half is not None:
        out = held_out(
            ((entries[n].labels if data.max_labels == 1 else "", entries[n]) for n in numbers),
            data.validation_share,
        )
        numbers = [n for n in numbers if (entries[n].path in out) == (part.half == "held out")]
    if not numbers:
        raise DataError(f"{of} has no examples of the split {split!r}")
    if wanted.is_slice:
        numbers.sort(key=lambda n: by_hash(entries[n]))
        numbers = [numbers[index] for index in wanted.indices(len(numbers))]
    taken = [entries[n] for n in numbers]
    labels = indices(
        taken,
        known,
        numbers=data.num_classes is not None,
        first_label=data.first_label,
        column=of,
    )
    examples = [Example(entry.path, its) for entry, its in zip(taken, labels)]
    from_part = ", ".join(filter(None, map(shown, part.names)))
    title = "held out" if part.half == "held out" else from_part
    same = title in ("", wanted.name)
    name = f"{of} ({split}{'' if same else f': {title}'})"
    return Taken(name, examples, tuple(known), available, numbers)
