"""Pictures that lie within larger files, each as some bytes in a row."""

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data.pictures.limits import MAX_BYTES
from effnetv2_jax.data.pictures.picture_file import read_picture
from effnetv2_jax.data.record import DecodeError
from effnetv2_jax.data.sources.label_names import Entry
from effnetv2_jax.data.sources.labelled import LabelledSource
from effnetv2_jax.data.sources.text_labels import take_split


class Place(NamedTuple):
    """Where the bytes of a picture are."""

    file: str
    start: int
    """The first byte in the file."""
    length: int
    """How many; -1 is the whole file."""


class PlacedSource(LabelledSource):
    """A split of pictures in larger files, each read by itself."""

    def __init__(
        self,
        of: str,
        entries: Sequence[Entry],
        places: Sequence[Place],
        split: str,
        data: DataConfig,
        class_names: Sequence[str] | None,
        notes: Iterable[str] = (),
    ) -> None:
        """Takes a split.

        Args:
          of: the data, in messages.
          entries: all of its examples.
          places: where the picture of each is.
          split, data, class_names: see `text_labels.take_split`.
          notes: what a user should know of how the data is read.

        Raises:
          DataError: there is no such split, or it has labels that training lacks.
        """
        taken = take_split(entries, split, data, class_names, of=of)
        super().__init__(
            taken.name, taken.examples, taken.class_names, available=taken.available, notes=notes
        )
        self._root = of if os.path.isdir(of) else os.path.dirname(of)
        chosen = [places[number] for number in taken.chosen]
        self._files = list(dict.fromkeys(place.file for place in chosen))
        numbers = {file: number for number, file in enumerate(self._files)}
        self._places = np.array(
            [(numbers[file], start, length) for file, start, length in chosen], np.int64
        )

    def _encoded(self, index: int) -> tuple[str, bytes]:
        number, start, length = self._places[index].tolist()
        file = self._files[number]
        if length < 0:
            return file, read_picture(file)
        key = f"{self._root}/{self.paths[index]}"
        if length > MAX_BYTES:
            raise DecodeError(f"it has more than {MAX_BYTES:,} bytes")
        with open(file, "rb", buffering=0) as stream:
            stream.seek(start)
            encoded = stream.read(length)
        if len(encoded) < length:
            raise DecodeError(f"{key}: the file ends within it")
        return key, encoded
