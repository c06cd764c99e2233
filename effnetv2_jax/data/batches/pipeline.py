"""Batches of images for training and evaluation, the same whatever reads them.

What stands at position `p` of a run's endless order of training examples, and which part of the
picture is cropped, are functions of (seed, p) alone: batch sizes, stages, processes, threads and
restarts do not enter. So a stage starts at any position at once, and processes share the order
out without knowing of each other. A run that has to avoid the order that it would come to takes
another from a position on, by a salt.
"""

import collections
import itertools
import sys
from collections.abc import Callable, Generator, Sequence

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data.batches.examples import Batch, EvalExamples, Examples, TrainExamples
from effnetv2_jax.data.batches.order import Order
from effnetv2_jax.data.batches.reader import Reader, key_of
from effnetv2_jax.data.batches.threads import Threads
from effnetv2_jax.data.batches.unreadable import Unreadable
from effnetv2_jax.data.batches.workers import Batches, Workers
from effnetv2_jax.data.record import DataError, Source
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.system.cores import cores


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
    workers: Workers | None = None,
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
      workers: processes that make the batches; None makes them in threads of this one.

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
    examples = TrainExamples(
        count=len(source),
        data=data,
        image_size=image_size,
        preprocessing=preprocessing,
        batch_size=batch_size,
        first_example=first_example,
        seed=seed,
        salts=tuple(salts),
    )
    _ = examples.order  # Refuses salts that do not rise.
    unlimited = sys.maxsize // batch_size
    return _batches(source, examples, rows, unlimited, unreadable, workers)


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
    order = Order(len(source), seed, salts)
    return [
        key_of(source, order.example(position))
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
    workers: Workers | None = None,
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
      workers: processes that make the batches; None makes them in threads of this one.

    Returns:
      A generator of `{"image": uint8 [B / P, S, S, 3], "labels": int32 [B / P, L],
      "mask": bool [B / P]}`, with labels as `train_batches` has them. Its `close()` stops the
      threads.

    Raises:
      DataError: as for `train_batches`.
    """
    rows = _rows(batch_size, process_index, process_count, "evaluation.batch_size")
    examples = EvalExamples(
        count=len(source),
        data=data,
        preprocessing=preprocessing,
        batch_size=batch_size,
    )
    count = -(-len(source) // batch_size)
    return _batches(source, examples, rows, count, unreadable, workers)


def _rows(batch_size: int, process_index: int, process_count: int, what: str) -> range:
    """This process's rows of every batch."""
    if batch_size % process_count:
        raise DataError(f"{what} is {batch_size}; it must divide by the {process_count} processes")
    count = batch_size // process_count
    return range(process_index * count, (process_index + 1) * count)


def _batches(
    source: Source,
    examples: Examples,
    rows: range,
    count: int,
    unreadable: Unreadable | None,
    workers: Workers | None,
) -> Generator[Batch, None, None]:
    """Makes `count` batches in order, `data.prefetch_batches` ahead of the one that is wanted."""
    data = examples.data
    # Not `or`: a count of 0 is false.
    unreadable = Unreadable(data.max_unreadable) if unreadable is None else unreadable
    job: Threads | Batches
    if workers is None:
        reader = Reader(source, max_labels=data.max_labels, unreadable=unreadable)
        job = Threads(examples, reader, rows, threads=data.threads or cores())
    else:
        job = workers.begin(source, examples, rows, unreadable)
    coming = iter(range(count))
    pending: collections.deque[Callable[[], Batch]] = collections.deque()

    def begin(batches: int) -> None:
        pending.extend(job.begin(batch) for batch in itertools.islice(coming, batches))

    try:
        begin(data.prefetch_batches)
        while pending:
            made = pending.popleft()()
            begin(1)
            yield made
            del made  # Its memory is not needed while the next one is waited for.
    finally:
        job.close()
