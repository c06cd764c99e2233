"""Makes rows of batches in threads of this process: the training process, or a worker."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from effnetv2_jax.data.batches.examples import Examples, HostBatch, split_rows
from effnetv2_jax.data.batches.reader import Reader

_AT_A_TIME = 8
"""Pictures that a thread takes at once, at most."""


class Threads:
    """Threads that fill batches of the same examples."""

    def __init__(self, examples: Examples, rows: range, *, threads: int) -> None:
        """`rows` are those of every batch that its arrays hold."""
        self._examples = examples
        self._first = rows.start
        self._threads = threads
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def begin(self, into: HostBatch, reader: Reader, batch: int, rows: range) -> Callable[[], None]:
        """Starts making some rows of a batch in its arrays.

        Returns:
          A function that waits for them, and raises the error of the first that cannot be made.
        """
        pieces = split_rows(rows, max(-(-len(rows) // _AT_A_TIME), self._threads))
        futures = [
            self._executor.submit(self._fill, into, reader, batch, piece) for piece in pieces
        ]

        def finish() -> None:
            for future in futures:
                future.result()

        return finish

    def close(self) -> None:
        """Stops the threads; each ends with the pictures that it is at."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _fill(self, into: HostBatch, reader: Reader, batch: int, rows: range) -> None:
        for row in rows:
            for name, value in self._examples.row(reader, batch, row).items():
                into[name][row - self._first] = value


class ThreadBatches:
    """Batches made by threads of this process."""

    def __init__(self, examples: Examples, reader: Reader, rows: range, *, threads: int) -> None:
        """`rows` are those of every batch that are made."""
        self._shapes = examples.shapes
        self._reader = reader
        self._rows = rows
        self._threads = Threads(examples, rows, threads=threads)

    def begin(self, batch: int) -> Callable[[], HostBatch]:
        """Starts making a batch; the returned function waits for it, and raises its first error."""
        arrays = {
            name: np.empty((len(self._rows), *shape), dtype)
            for name, (shape, dtype) in self._shapes.items()
        }
        finish = self._threads.begin(arrays, self._reader, batch, self._rows)

        def made() -> HostBatch:
            finish()
            return arrays

        return made

    def close(self) -> None:
        """Stops the threads; each ends with the pictures that it is at."""
        self._threads.close()
