"""Batches of images for training and evaluation, the same whatever reads them.

What stands at position `p` of a run's endless order of training examples, and which part of the
picture is cropped, are functions of (seed, p) alone: batch sizes, stages, processes, threads and
restarts do not enter. So a stage starts at any position at once, and processes share the order
out without knowing of each other. A run that has to avoid the order that it would come to takes
another from a position on, by a salt.
"""

import bisect
import itertools
import logging
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import grain
import numpy as np
from grain.experimental import index_shuffle
from numpy.typing import NDArray

from effnetv2_jax.cores import cores
from effnetv2_jax.data.crops import eval_image, random_box, resize_box
from effnetv2_jax.data.decode import Box, Pixels, decode
from effnetv2_jax.data.record import DataError, DecodeError, Record, Source
from effnetv2_jax.experiment import DataConfig
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.read_errors import is_passing, is_shortage

Batch = dict[str, NDArray[Any]]
Labels = NDArray[np.int32]
Part = Callable[[int, int], Box]
"""The part of a picture that is wanted, by the picture's height and width."""

_WAITS = (0.1, 1.0, 5.0)
"""Seconds before another try to read what may be there the next time."""

_log = logging.getLogger(__name__)


class Unreadable:
    """Counts the pictures that could not be read; safe to share between threads and loaders."""

    def __init__(self, limit: int) -> None:
        """One unreadable picture more than `limit` raises a `DataError`."""
        self._limit = limit
        self._reasons: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, key: str, reason: str) -> None:
        """Notes a picture, and logs it unless it is known already."""
        with self._lock:
            if key in self._reasons:
                return
            self._reasons[key] = reason
            count = len(self._reasons)
        if count > self._limit:
            raise DataError(
                f"{count} pictures cannot be read, the last one {key}: {reason}. Repair or remove "
                "them (the log names them all), or raise data.max_unreadable"
            )
        _log.warning("unreadable picture %d: %s: %s", count, key, reason)

    def __len__(self) -> int:
        """How many different pictures could not be read."""
        return len(self._reasons)

    @property
    def reasons(self) -> dict[str, str]:
        """Why each picture could not be read, by its key."""
        with self._lock:
            return dict(self._reasons)


def train_batches(
    source: Source,
    data: DataConfig,
    *,
    image_size: int,
    preprocessing: Preprocessing,
    batch_size: int,
    first_example: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    unreadable: Unreadable | None = None,
    salts: Sequence[tuple[int, int]] = (),
) -> Generator[Batch, None, None]:
    """Iterates over this process's part of a stage's training batches, without end.

    The order is an endless row of epochs, each a permutation of its own. Process i of P gets rows
    i * B / P to (i + 1) * B / P - 1 of every batch of B examples. An unreadable picture is
    replaced by the next readable one of the source.

    Args:
      source: the training examples.
      data: how they are cropped and resized, and how many threads do it.
      image_size: height and width S of the images in pixels.
      preprocessing: of it, how pictures are resized to that size.
      batch_size: examples per step over all processes, B.
      first_example: position in the run's order where the first batch begins.
      seed: of the run.
      process_index, process_count: this process among all.
      unreadable: counts unreadable pictures; None counts those of this call.
      salts: pairs of a position and a salt, both from 0, the positions rising: from each position
        to the next, order and crops are those of (seed, salt), and before the first of seed alone.

    Returns:
      A generator of `{"image": uint8 [B / P, S, S, 3], "labels": int32 [B / P, L]}`, where L is
      `data.max_labels`, and -1 fills the place of labels that an example does not have. Its
      `close()` stops the threads; they end with the pictures they are at.

    Raises:
      DataError: at once, if the batch does not divide by the processes; while iterating, if more
        than `data.max_unreadable` pictures are unreadable, or an example has more than L labels or
        one that is out of range.
      ValueError: at once, if the salts' positions do not rise.
    """
    rows = _rows(batch_size, process_index, process_count, "the batch size")
    reader = _Reader(source, data, unreadable)
    order = _Order(len(source), seed, salts)

    def example(batch: int, row: int) -> Batch:
        position = first_example + batch * batch_size + row

        def box(height: int, width: int) -> Box:
            return random_box(
                data.crop,
                height,
                width,
                area=data.crop_area,
                aspect=data.crop_aspect,
                image_size=image_size,
                rng=order.randomness(position),
            )

        pixels, labels = reader.readable(order.example(position), box)
        image = resize_box(
            pixels,
            Box(0, 0, *pixels.shape[:2]),
            image_size,
            preprocessing.interpolation,
            antialias=preprocessing.antialias,
        )
        return {"image": image, "labels": labels}

    return _batches(example, rows, sys.maxsize // batch_size, data)


def example_keys(
    source: Source,
    *,
    first_example: int,
    count: int,
    seed: int,
    salts: Sequence[tuple[int, int]] = (),
) -> list[str]:
    """Names training examples without decoding them, for messages.

    Args:
      source, first_example, seed, salts: as `train_batches` has them.
      count: how many, from position `first_example` on.

    Returns:
      The keys [count] of what stands in the order, in whose place the next readable example of the
      source is trained on where one is unreadable.
    """
    order = _Order(len(source), seed, salts)
    return [
        _key(source, order.example(position))
        for position in range(first_example, first_example + count)
    ]


def eval_batches(
    source: Source,
    data: DataConfig,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    unreadable: Unreadable | None = None,
) -> Generator[Batch, None, None]:
    """Iterates over this process's part of the evaluation: every example once, in order.

    Every process gets the same number of batches. Padding after the last example, and pictures
    that cannot be read, are black, have no labels and are masked.

    Args:
      source: the evaluation examples.
      data: how many threads decode and resize.
      preprocessing: what they do, all but the normalisation; images have its size S.
      batch_size: examples per step over all processes, B.
      process_index, process_count: this process among all, P.
      unreadable: counts unreadable pictures; None counts those of this call.

    Returns:
      A generator of `{"image": uint8 [B / P, S, S, 3], "labels": int32 [B / P, L],
      "mask": bool [B / P]}`, with labels as `train_batches` has them. Its `close()` stops the
      threads.

    Raises:
      DataError: as for `train_batches`.
    """
    size = preprocessing.image_size
    rows = _rows(batch_size, process_index, process_count, "evaluation.batch_size")
    reader = _Reader(source, data, unreadable)
    masked: Batch = {
        "image": np.zeros((size, size, 3), np.uint8),
        "labels": np.full(data.max_labels, -1, np.int32),
        "mask": np.array(False),
    }

    def example(batch: int, row: int) -> Batch:
        index = batch * batch_size + row
        found = reader.read(index) if index < len(source) else None
        if found is None:
            return masked
        pixels, labels = found
        return {
            "image": eval_image(pixels, preprocessing),
            "labels": labels,
            "mask": np.array(True),
        }

    return _batches(example, rows, -(-len(source) // batch_size), data)


class _Reader:
    """Decodes examples and keeps account of those that cannot be."""

    def __init__(self, source: Source, data: DataConfig, unreadable: Unreadable | None) -> None:
        self._source = source
        self._max_labels = data.max_labels
        # Not `or`: a count of 0 is false.
        self._unreadable = Unreadable(data.max_unreadable) if unreadable is None else unreadable

    def read(self, index: int, part: Part | None = None) -> tuple[Pixels, Labels] | None:
        """Pixels, or part of them, and labels of an example; None, and noted, if unreadable."""
        try:
            key, encoded, labels = self._record(index)
        except (DecodeError, OSError) as error:
            self._unreadable.add(_key_of_failure(self._source, index, error), str(error))
            return None
        try:
            pixels = decode(encoded, exif=self._source.exif, part=part)
        except DecodeError as error:
            self._unreadable.add(key, str(error))
            return None
        return pixels, self._row(key, labels)

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

    def readable(self, index: int, part: Part) -> tuple[Pixels, Labels]:
        """The first example from `index` on that can be read."""
        count = len(self._source)
        for offset in range(count):
            found = self.read((index + offset) % count, part)
            if found is not None:
                return found
        raise DataError(f"none of the {count} pictures of {self._source.name} can be read")


class _Order:
    """An endless row of epochs, each a permutation of its own, with randomness for the crops.

    What stands in it is `grain.MapDataset.range(count).shuffle(seed=...).repeat()[position]`, whose
    accounts of itself would take a twentieth of all the time that a picture takes.
    """

    def __init__(self, count: int, seed: int, salts: Sequence[tuple[int, int]]) -> None:
        """Of `count` examples; see `train_batches` for the rest."""
        self._count = count
        self._starts = [start for start, _ in salts]
        if self._starts != sorted(set(self._starts)):
            raise ValueError(f"the positions of the salts {salts} must rise")
        # A spawn key, since SeedSequence takes [seed, 0] and [seed] to be the same.
        sequences = [np.random.SeedSequence(seed)] + [
            np.random.SeedSequence(seed, spawn_key=(salt,)) for _, salt in salts
        ]
        states = [sequence.generate_state(2, np.uint64) for sequence in sequences]
        self._shuffle_seeds = [int(order % 2**32) for order, _ in states]
        self._crop_keys = [crop for _, crop in states]

    def example(self, position: int) -> int:
        """Which example of the source stands there."""
        epoch, index = divmod(position, self._count)
        seed = (self._shuffle_seeds[self._part(position)] + epoch) % 2**32
        return index_shuffle(index, max_index=self._count - 1, seed=seed, rounds=4)

    def randomness(self, position: int) -> np.random.Generator:
        """Where its crop comes from."""
        key = [self._crop_keys[self._part(position)], position]
        return np.random.Generator(np.random.Philox(key=key))

    def _part(self, position: int) -> int:
        """How many salts have begun."""
        return bisect.bisect_right(self._starts, position)


def _key(source: Source, index: int) -> str:
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


def _rows(batch_size: int, process_index: int, process_count: int, what: str) -> range:
    """This process's rows of every batch."""
    if batch_size % process_count:
        raise DataError(f"{what} is {batch_size}; it must divide by the {process_count} processes")
    count = batch_size // process_count
    return range(process_index * count, (process_index + 1) * count)


def _batches(
    example: Callable[[int, int], Batch], rows: range, batches: int, data: DataConfig
) -> Generator[Batch, None, None]:
    """Makes the examples of `batches` batches in threads and stacks them in order."""
    threads = data.threads or cores()
    # A thread's task is a chunk of several examples, since Grain spends as long on every task as
    # there are tasks ready; yet every thread should have two of them ahead.
    chunk = min(8, max(1, len(rows) * data.prefetch_batches // (2 * threads)))
    chunks = [rows[start : start + chunk] for start in range(0, len(rows), chunk)]

    def make(task: int) -> list[Batch]:
        batch, part = divmod(task, len(chunks))
        return [example(batch, row) for row in chunks[part]]

    tasks = grain.MapDataset.range(batches * len(chunks)).map(make)
    made = iter(
        tasks.to_iter_dataset(
            grain.ReadOptions(
                num_threads=threads, prefetch_buffer_size=data.prefetch_batches * len(chunks)
            )
        )
    )
    try:
        for _ in range(batches):
            examples = list(itertools.chain.from_iterable(itertools.islice(made, len(chunks))))
            yield {key: np.stack([each[key] for each in examples]) for key in examples[0]}
    finally:
        made.close()
