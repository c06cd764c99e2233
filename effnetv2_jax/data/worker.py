"""A process that makes rows of batches; `workers` starts it and tells it what to do."""

import contextlib
import mmap
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import NamedTuple

from effnetv2_jax.data import shared_memory
from effnetv2_jax.data.examples import Examples, fill, parts
from effnetv2_jax.data.reader import Reader
from effnetv2_jax.data.record import DataError, Source

Notes = list[tuple[str, str]]
"""Pictures that could not be read, and why."""


class Share(NamedTuple):
    """A source, pickled in memory whose file descriptor follows."""

    number: int
    size: int
    """In bytes."""


class Job(NamedTuple):
    """The batches of a stage or evaluation."""

    number: int
    source: int
    examples: Examples
    rows: int
    """Of each batch, as this machine has them."""
    max_labels: int


class Make(NamedTuple):
    """Rows of a batch to be made, in memory whose file descriptor follows."""

    number: int
    job: int
    batch: int
    rows: range
    first: int
    """Place of the first of them in the batch's arrays."""


class End(NamedTuple):
    """Of a job: what was not begun of it need not be made."""

    job: int


class Done(NamedTuple):
    """The answer to a `Make`."""

    number: int
    unreadable: Notes
    error: BaseException | None


class _Account(Notes):
    """Notes of one task; what they mean for the run is for the training process to say."""

    def add(self, key: str, reason: str) -> None:
        self.append((key, reason))


def main() -> None:
    """Serves until the training process has ended, however it did."""
    for unheard in (signal.SIGINT, signal.SIGTERM):  # The training process still wants pictures.
        signal.signal(unheard, signal.SIG_IGN)
    connection, threads = Connection(int(sys.argv[1])), int(sys.argv[2])
    sources: dict[int, Source | DataError] = {}
    jobs: dict[int, Job] = {}
    decoding, answering = ThreadPoolExecutor(threads), ThreadPoolExecutor(1)

    def begin(task: Make) -> None:
        with _received(connection) as descriptor:
            job = jobs[task.job]
            arrays = shared_memory.arrays_in(descriptor, job.examples.shapes, job.rows)
        source, notes = sources[job.source], _Account()
        if isinstance(source, DataError):
            answering.submit(_answer, connection, Done(task.number, notes, source))
            return
        reader = Reader(source, max_labels=job.max_labels, unreadable=notes)

        def make(part: range) -> None:
            if task.job in jobs:
                first = task.first + part.start - task.rows.start
                fill(arrays, job.examples, reader, task.batch, part, first)

        made = [decoding.submit(make, part) for part in parts(task.rows, threads)]
        answering.submit(finish, task.number, made, notes)

    def finish(number: int, made: list[Future[None]], notes: Notes) -> None:
        errors = [error for error in (future.exception() for future in made) if error is not None]
        _answer(connection, Done(number, list(notes), errors[0] if errors else None))

    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            os._exit(0)
        match message:
            case Share(number, size):
                with _received(connection) as descriptor, mmap.mmap(descriptor, size) as memory:
                    sources[number] = _open(memory)
            case Job() as job:
                jobs[job.number] = job
            case Make() as task:
                begin(task)
            case End(number):
                del jobs[number]


def _open(pickled: mmap.mmap) -> Source | DataError:
    try:
        source: Source = pickle.loads(pickled)
    except Exception as error:
        # Loading runs code of the source's own.
        return DataError(
            f"the source of pictures cannot be read by other processes ({error}); data.processes=0 "
            "reads it in the training process"
        )
    return source


@contextlib.contextmanager
def _received(connection: Connection) -> Iterator[int]:
    """A file descriptor that was sent, until the end of the context."""
    descriptor = recv_handle(connection)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _answer(connection: Connection, done: Done) -> None:
    try:
        connection.send(done)
    except OSError:
        os._exit(0)
    except Exception:
        # The error cannot be pickled.
        error = RuntimeError(f"{type(done.error).__name__}: {done.error}")
        connection.send(done._replace(error=error))
