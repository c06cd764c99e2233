"""Decodes the examples of a source, and replaces those that cannot be read."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnetv2_jax.data.batches.unreadable import Unreadable
from effnetv2_jax.data.pictures.box import Box, Pixels
from effnetv2_jax.data.pictures.decode import decode, open_picture
from effnetv2_jax.data.pictures.limits import MAX_PIXELS
from effnetv2_jax.data.record import Classed, DataError, DecodeError, Record, Source
from effnetv2_jax.system.read_errors import is_passing, is_shortage

Labels = NDArray[np.int32]
Crop = Callable[[int, int], Box]
"""Chooses a part of a picture by its height and width in pixels."""

_WAITS = (0.1, 1.0, 5.0)
"""Seconds before another try to read what may be there the next time."""


class Reader:
    """Decodes the examples of a source, and counts those that cannot be read."""

    def __init__(
        self,
        source: Source,
        *,
        max_labels: int,
        unreadable: Unreadable,
        channels: int = 3,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Labels come as rows of `max_labels`, filled up with -1; `channels` as for `decode`."""
        self._source = source
        self._max_labels = max_labels
        self._wanted: dict[str, Any] = {
            "exif": source.exif,
            "channels": channels,
            "max_pixels": max_pixels,
        }
        self._unreadable = unreadable

    @property
    def count(self) -> int:
        """Examples of the source."""
        return len(self._source)

    def read(self, index: int, crop: Crop | None = None) -> tuple[Pixels, Labels] | None:
        """Pixels of an example, or of the part that `crop` chooses, and its labels.

        None if it is unreadable, and then it is counted.

        Raises:
          DataError: too many are unreadable, its labels do not fit, or this machine has no room to
            read it.
        """
        try:
            key, encoded, labels = self._record(index)
        except (DecodeError, OSError) as error:
            self._unreadable.add(_key_of_failure(self._source, index, error), str(error))
            return None
        try:
            if crop is None:
                pixels = decode(encoded, **self._wanted)
            else:
                picture = open_picture(encoded, **self._wanted)
                pixels = picture.part(crop(picture.height, picture.width))
        except DecodeError as error:
            self._unreadable.add(key, str(error))
            return None
        return pixels, self._row(key, labels)

    def read_or_replace(
        self, index: int, crop: Crop, draws: Callable[[], np.random.Generator]
    ) -> tuple[Pixels, Labels]:
        """Example `index` as `read` returns it, or a readable one in its place.

        That is drawn from those of its class, so that classes keep their shares, where the source
        knows them (`record.Classed`) and one is readable, and else from all.

        Args:
          draws: the randomness of a replacement.

        Raises:
          DataError: as `read`, or none can be read.
        """
        found = self.read(index, crop)
        if found is not None:
            return found
        rng = draws()
        pools: list[Sequence[int]] = [range(self.count)]
        if isinstance(self._source, Classed):
            pools.insert(0, self._source.same_class(index))
        for pool in pools:
            tried = {index}
            while len(tried) < len(pool):
                other = int(pool[int(rng.integers(len(pool)))])
                if other in tried:
                    continue
                tried.add(other)
                found = self.read(other, crop)
                if found is not None:
                    return found
        raise DataError(f"none of the {self.count} pictures of {self._source.name} can be read")

    def _record(self, index: int) -> Record:
        """Reads again what may be read the next time: a replacement would change the run."""
        waits = iter(_WAITS)
        while True:
            try:
                return self._source[index]
            except (DecodeError, OSError) as error:
                cause = error if isinstance(error, OSError) else error.__cause__
                wait = next(waits, None) if is_passing(cause) else None
                if wait is None and is_shortage(cause):
                    key = _key_of_failure(self._source, index, error)
                    raise DataError(f"no room on this machine to read {key}: {error}") from error
                if wait is None:
                    raise
            time.sleep(wait)

    def _row(self, key: str, labels: Sequence[int]) -> Labels:
        """Checks an example's labels, and fills them up with -1."""
        classes = len(self._source.class_names)
        for label in labels:
            if not 0 <= label < classes:
                raise DataError(
                    f"{key} has label {label}, but there are {classes} classes; a split without "
                    "labels can be neither trained nor evaluated on, and where labels count from "
                    "1, data.first_label has to say so"
                )
        if len(labels) > self._max_labels:
            raise DataError(
                f"{key} has {len(labels)} labels; data.max_labels, which is {self._max_labels}, "
                "must make room for them"
            )
        return np.array([*labels, *[-1] * (self._max_labels - len(labels))], np.int32)


def key_of(source: Source, index: int) -> str:
    """The key of an example, or what stands for it where that cannot be read."""
    try:
        return source[index].key
    except (DecodeError, OSError) as error:
        return _key_of_failure(source, index, error)


def _key_of_failure(source: Source, index: int, error: Exception) -> str:
    """Names an example that cannot even be read from the source."""
    if isinstance(error, OSError) and error.filename is not None:
        return str(error.filename)
    return f"{source.name} example {index}"
