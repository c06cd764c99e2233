"""How the rows of a batch are made, wherever that is done: in a thread, or in another process."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data.batches.order import Order
from effnetv2_jax.data.batches.reader import Reader
from effnetv2_jax.data.pictures.crops import eval_image, random_box, resize_box
from effnetv2_jax.data.pictures.decode import Box
from effnetv2_jax.preprocessing import Preprocessing

Batch = dict[str, NDArray[Any]]
Shapes = dict[str, tuple[tuple[int, ...], Any]]
"""Shape and type of each array of a batch, or of a row."""


class Examples(Protocol):
    """Says what each row of each batch is; can be pickled."""

    @property
    def data(self) -> DataConfig: ...

    @property
    def shapes(self) -> Shapes:
        """Of a row."""
        ...

    def row(self, reader: Reader, batch: int, row: int) -> dict[str, Any]:
        """Makes one."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainExamples:
    """See `pipeline.train_batches`."""

    count: int
    """Of the source."""
    data: DataConfig
    image_size: int
    preprocessing: Preprocessing
    batch_size: int
    first_example: int
    seed: int
    salts: Sequence[tuple[int, int]]

    @property
    def shapes(self) -> Shapes:
        size = self.image_size
        return {
            "image": ((size, size, 3), np.uint8),
            "labels": ((self.data.max_labels,), np.int32),
        }

    @functools.cached_property
    def order(self) -> Order:
        """Raises a ValueError if the salts' positions do not rise."""
        return Order(self.count, self.seed, self.salts)

    def row(self, reader: Reader, batch: int, row: int) -> dict[str, Any]:
        position = self.first_example + batch * self.batch_size + row

        def box(height: int, width: int) -> Box:
            return random_box(
                self.data.crop,
                height,
                width,
                area=self.data.crop_area,
                aspect=self.data.crop_aspect,
                image_size=self.image_size,
                rng=self.order.randomness(position),
            )

        pixels, labels = reader.readable(self.order.example(position), box)
        image = resize_box(
            pixels,
            Box(0, 0, *pixels.shape[:2]),
            self.image_size,
            self.preprocessing.interpolation,
            antialias=self.preprocessing.antialias,
        )
        return {"image": image, "labels": labels}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalExamples:
    """See `pipeline.eval_batches`."""

    count: int
    """Of the source."""
    data: DataConfig
    preprocessing: Preprocessing
    batch_size: int

    @property
    def shapes(self) -> Shapes:
        size = self.preprocessing.image_size
        return {
            "image": ((size, size, 3), np.uint8),
            "labels": ((self.data.max_labels,), np.int32),
            "mask": ((), np.bool_),
        }

    def row(self, reader: Reader, batch: int, row: int) -> dict[str, Any]:
        index = batch * self.batch_size + row
        found = reader.read(index) if index < self.count else None
        if found is None:
            return {"image": 0, "labels": -1, "mask": False}
        pixels, labels = found
        return {"image": eval_image(pixels, self.preprocessing), "labels": labels, "mask": True}


def empty(shapes: Shapes, rows: int) -> Batch:
    """Arrays for a batch, whatever is in them."""
    return {name: np.empty((rows, *shape), dtype) for name, (shape, dtype) in shapes.items()}


def fill(
    into: Batch, first: int, examples: Examples, reader: Reader, batch: int, rows: Sequence[int]
) -> None:
    """Makes `rows` of a batch, and puts them into its arrays, which begin with row `first`."""
    for row in rows:
        for name, value in examples.row(reader, batch, row).items():
            into[name][row - first] = value


def parts(rows: range, count: int) -> list[range]:
    """The rows in `count` parts that follow each other and are about equal, none of them empty."""
    count = min(count, len(rows))
    ends = [len(rows) * part // count for part in range(count + 1)]
    return [rows[start:stop] for start, stop in itertools.pairwise(ends)]
