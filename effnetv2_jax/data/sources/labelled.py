"""What sources share that know the labels of their examples without reading the pictures."""

import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from effnetv2_jax.data.record import Record


class LabelIndex:
    """Which examples have which labels."""

    def __init__(self, labels: Sequence[Sequence[int]], num_classes: int) -> None:
        """Sorts examples by class.

        Args:
          labels: of each example, in [0, num_classes) and different; there may be none.
          num_classes: K.
        """
        counts = [len(each) for each in labels]
        flat = np.fromiter((label for each in labels for label in each), np.int32, sum(counts))
        self._examples = np.repeat(np.arange(len(labels), dtype=np.int32), counts)[
            np.argsort(flat, kind="stable")
        ]
        self.counts: NDArray[np.int64] = np.bincount(flat, minlength=num_classes)
        """[K], how many examples have each class among their labels."""
        self._ends = np.cumsum([0, *self.counts])

    def members(self, label: int) -> NDArray[np.int32]:
        """The examples that have a class among their labels, rising."""
        return self._examples[self._ends[label] : self._ends[label + 1]]


class Example(NamedTuple):
    """Where the picture of an example is, and what its labels are."""

    path: str
    """Names the picture, and decides whether it is held out."""
    labels: tuple[int, ...]
    """Indices of its classes."""


class LabelledSource:
    """A source whose examples are listed; how one is read, subclasses say by `_encoded`."""

    exif = True

    def __init__(
        self,
        name: str,
        examples: Sequence[Example],
        class_names: Sequence[str],
        *,
        available: int | None = None,
        notes: Iterable[str] = (),
    ) -> None:
        """Keeps the list.

        Args:
          name: of the source in messages.
          examples: in their order.
          class_names: in the order of their labels.
          available: examples of the whole split; None: as many.
          notes: what a user should know of how the source is read.
        """
        self.name = name
        self.class_names = tuple(class_names)
        self.available = len(examples) if available is None else available
        self.notes = tuple(notes)
        self.paths = [example.path for example in examples]
        """Of the pictures."""
        self._labels = [example.labels for example in examples]
        digest = hashlib.sha256(repr(self.class_names).encode(errors="surrogateescape"))
        for example in examples:
            digest.update(f"{example}\n".encode(errors="surrogateescape"))
        self.fingerprint = digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Record:
        key, encoded = self._encoded(index)
        return Record(key, encoded, self._labels[index])

    def _encoded(self, index: int) -> tuple[str, bytes]:
        """The key and the bytes of a picture; raises OSError or DecodeError."""
        raise NotImplementedError

    def labels_of(self, index: int) -> tuple[int, ...]:
        """The labels of an example, without reading its picture."""
        return self._labels[index]

    @property
    def class_counts(self) -> tuple[int, ...]:
        """How many examples have each class among their labels, in the order of `class_names`."""
        return tuple(self._index.counts.tolist())

    def same_class(self, index: int) -> Sequence[int]:
        """The examples that share the first label of example `index`; itself where it has none."""
        labels = self._labels[index]
        return self._index.members(labels[0]).tolist() if labels else [index]

    @functools.cached_property
    def _index(self) -> LabelIndex:
        return LabelIndex(self._labels, len(self.class_names))
