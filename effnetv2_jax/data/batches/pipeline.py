"""Batches of images for training and evaluation, the same whatever makes them.

Which example stands at position `p` of a run's endless order, and which part of the picture is
cropped, are functions of (seed, p) alone: batch sizes, stages, processes, threads and restarts do
not enter. So a stage starts at any position at once, and processes take their shares of the order
without communicating. A run that has to avoid the examples ahead takes another order from a
position on, by a salt.
"""

import collections
import itertools
from collections.abc import Callable, Generator, Iterable

from effnetv2_jax.data.batches.examples import Examples, HostBatch, make_reader
from effnetv2_jax.data.batches.order import Order
from effnetv2_jax.data.batches.reader import key_of
from effnetv2_jax.data.batches.threads import ThreadBatches
from effnetv2_jax.data.batches.unreadable import Unreadable
from effnetv2_jax.data.batches.workers import WorkerBatches, Workers
from effnetv2_jax.data.record import Source
from effnetv2_jax.system.cores import cores


def make_batches(
    source: Source,
    examples: Examples,
    *,
    process_index: int = 0,
    process_count: int = 1,
    unreadable: Unreadable | None = None,
    workers: Workers | None = None,
) -> Generator[HostBatch, None, None]:
    """Iterates over this process's rows of every batch.

    Process i of P makes rows i * B / P to (i + 1) * B / P - 1 of every batch of B examples, and
    every process makes the same number of batches.

    Args:
      source: where the pictures come from.
      examples: `TrainExamples` or `EvalExamples`: what the batches are.
      process_index, process_count: this process among all, P.
      unreadable: counts unreadable pictures; None counts those of this call.
      workers: processes that make the batches; None makes them in threads of this one.

    Returns:
      A generator of `{"image": uint8 [B / P, S, S, C], "labels": int32 [B / P, L]}`, for evaluation
      with `"mask": bool [B / P]`. L is `data.max_labels`, and -1 stands in place of labels that an
      example does not have. `close()` stops the threads; they end with the pictures they are at.

    Raises:
      DataError: at once, if the batch does not divide by the processes; while iterating, if more
        than `data.max_unreadable` pictures are unreadable, or an example has more than L labels or
        one that is out of range.
      ValueError: at once, if the examples' order is of another number of examples than the source.
    """
    rows = examples.rows(process_index, process_count)
    return _generate(source, examples, rows, examples.batches(len(source)), unreadable, workers)


def example_keys(source: Source, order: Order, positions: Iterable[int]) -> list[str]:
    """Names training examples without decoding them, for messages.

    Args:
      order: of the source's examples.
      positions: in the order.

    Returns:
      The key of the example at each position. Where it is unreadable, another is trained on
      instead.
    """
    return [key_of(source, order.example(position)) for position in positions]


def _generate(
    source: Source,
    examples: Examples,
    rows: range,
    count: int,
    unreadable: Unreadable | None,
    workers: Workers | None,
) -> Generator[HostBatch, None, None]:
    """Makes `count` batches in order, `data.prefetch_batches` ahead of the one that is wanted."""
    data = examples.data
    # Not `or`: a count of 0 is false.
    unreadable = Unreadable(data.max_unreadable) if unreadable is None else unreadable
    batches: ThreadBatches | WorkerBatches
    if workers is None:
        reader = make_reader(source, examples, unreadable)
        batches = ThreadBatches(examples, reader, rows, threads=data.threads or cores())
    else:
        batches = workers.begin(source, examples, rows, unreadable)
    numbers = iter(range(count))
    pending: collections.deque[Callable[[], HostBatch]] = collections.deque()

    def begin(more: int) -> None:
        pending.extend(batches.begin(number) for number in itertools.islice(numbers, more))

    try:
        begin(data.prefetch_batches)
        while pending:
            made = pending.popleft()()
            begin(1)
            yield made
            del made  # Its memory is not needed while the next one is waited for.
    finally:
        batches.close()
