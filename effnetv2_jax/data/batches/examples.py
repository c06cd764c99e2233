"""What the rows of every batch are, wherever they are made: in a thread, or in another process."""

import dataclasses
import itertools
import sys
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data.batches.order import Order
from effnetv2_jax.data.batches.reader import Reader
from effnetv2_jax.data.batches.unreadable import Unreadable
from effnetv2_jax.data.pictures.box import Box
from effnetv2_jax.data.pictures.crops import eval_image, random_box, resize
from effnetv2_jax.data.record import DataError, Source
from effnetv2_jax.preprocessing import Preprocessing

HostBatch = dict[str, NDArray[Any]]
"""A process's rows of a batch, by name, in the host's memory."""
Shapes = dict[str, tuple[tuple[int, ...], Any]]
"""Shape and type of each array of a batch, or of a row."""


class Examples(Protocol):
    """Describes the rows of batches; can be pickled."""

    @property
    def data(self) -> DataConfig:
        """How they are read; normalisation and interpolation are `Preprocessing`'s."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures are resized, to which size and with which channels."""
        ...

    @property
    def shapes(self) -> Shapes:
        """Of a row."""
        ...

    def rows(self, process_index: int, process_count: int) -> range:
        """The rows of every batch that belong to a process.

        Raises:
          DataError: the batch does not divide by the processes.
        """
        ...

    def batches(self, count: int) -> int:
        """How many batches a source of `count` examples gives.

        Raises:
          ValueError: they are of a source of another length.
        """
        ...

    def row(self, reader: Reader, batch: int, row: int) -> dict[str, Any]:
        """Makes one row.

        Raises:
          DataError: as `Reader.read` and `Reader.read_or_replace`.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainExamples:
    """A stage's training examples: random crops, in the run's order, without end.

    An unreadable picture is replaced by one that its position in the order draws, of its class
    where the source knows the classes.
    """

    order: Order
    """Of all examples of the run."""
    data: DataConfig
    preprocessing: Preprocessing
    """How crops are resized, and to which size S; normalisation is left to the device."""
    batch_size: int
    """Examples per step over all processes, B."""
    first_example: int = 0
    """The position in the order where the first batch begins."""

    @property
    def shapes(self) -> Shapes:
        return _shapes(self.data, self.preprocessing)

    def rows(self, process_index: int, process_count: int) -> range:
        return _rows("the batch size", self.batch_size, process_index, process_count)

    def batches(self, count: int) -> int:
        if count != self.order.count:
            raise ValueError(f"the order is of {self.order.count} examples, the source has {count}")
        return sys.maxsize // self.batch_size

    def row(self, reader: Reader, batch: int, row: int) -> dict[str, Any]:
        position = self.first_example + batch * self.batch_size + row

        def crop(height: int, width: int) -> Box:
            return random_box(
                self.data.crop,
                height,
                width,
                area=self.data.crop_area,
                aspect=self.data.crop_aspect,
                image_size=self.preprocessing.image_size,
                rng=self.order.randomness(position),
            )

        pixels, labels = reader.read_or_replace(
            self.order.example(position), crop, lambda: self.order.replacements(position)
        )
        return {"image": resize(pixels, self.preprocessing), "labels": labels}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalExamples:
    """All examples of a source, once and in order, as the model sees them in evaluation.

    What follows the last example in its batch, and pictures that cannot be read, are black, have no
    labels and are masked.
    """

    data: DataConfig
    preprocessing: Preprocessing
    """How pictures are cropped and resized to size S; normalisation is left to the device."""
    batch_size: int
    """Examples per step over all processes, B."""

    @property
    def shapes(self) -> Shapes:
        return _shapes(self.data, self.preprocessing) | {"mask": ((), np.bool_)}

    def rows(self, process_index: int, process_count: int) -> range:
        return _rows("evaluation.batch_size", self.batch_size, process_index, process_count)

    def batches(self, count: int) -> int:
        return -(-count // self.batch_size)

    def row(self, reader: Reader, batch: int, row: int) -> dict[str, Any]:
        index = batch * self.batch_size + row
        found = reader.read(index) if index < reader.count else None
        if found is None:
            return {"image": 0, "labels": -1, "mask": False}
        pixels, labels = found
        return {"image": eval_image(pixels, self.preprocessing), "labels": labels, "mask": True}


def _shapes(data: DataConfig, preprocessing: Preprocessing) -> Shapes:
    size = preprocessing.image_size
    image = (size, size, preprocessing.channels)
    return {"image": (image, np.uint8), "labels": ((data.max_labels,), np.int32)}


def make_reader(source: Source, examples: Examples, unreadable: Unreadable) -> Reader:
    """Reads a source's pictures as examples need them."""
    return Reader(
        source,
        max_labels=examples.data.max_labels,
        unreadable=unreadable,
        channels=examples.preprocessing.channels,
        max_pixels=examples.data.max_pixels,
    )


def _rows(name: str, batch_size: int, process_index: int, process_count: int) -> range:
    if batch_size % process_count:
        raise DataError(f"{name} is {batch_size}; it must divide by the {process_count} processes")
    count = batch_size // process_count
    return range(process_index * count, (process_index + 1) * count)


def split_rows(rows: range, count: int) -> Sequence[range]:
    """The rows in `count` pieces that follow each other and are about equal, none of them empty."""
    count = min(count, len(rows))
    ends = [len(rows) * piece // count for piece in range(count + 1)]
    return [rows[start:stop] for start, stop in itertools.pairwise(ends)]
