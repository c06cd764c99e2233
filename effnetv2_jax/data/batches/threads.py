"""Makes batches in threads of this process."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from effnetv2_jax.data.batches.examples import Batch, Examples, empty, fill, parts
from effnetv2_jax.data.batches.reader import Reader

_PART = 8
"""Pictures that a thread takes at a time, at most."""


class Threads:
    """Makes the batches of one stage or evaluation."""

    def __init__(self, examples: Examples, reader: Reader, rows: range, *, threads: int) -> None:
        """`rows` are those of every batch that are to be made."""
        self._examples = examples
        self._reader = reader
        self._rows = rows
        self._parts = parts(rows, max(-(-len(rows) // _PART), threads))
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def begin(self, batch: int) -> Callable[[], Batch]:
        """Begins a batch; what is returned waits for it."""
        arrays = empty(self._examples.shapes, len(self._rows))
        futures = [
            self._executor.submit(
                fill, arrays, self._rows.start, self._examples, self._reader, batch, part
            )
            for part in self._parts
        ]

        def made() -> Batch:
            for future in futures:
                future.result()
            return arrays

        return made

    def close(self) -> None:
        """Stops the threads; each ends with the pictures that it is at."""
        self._executor.shutdown(wait=False, cancel_futures=True)
