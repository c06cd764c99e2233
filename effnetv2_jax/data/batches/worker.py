"""A process that makes rows of batches; `workers` starts it and tells it what to do."""

import mmap
import os
import pickle
import socket
import sys
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from effnetv2_jax.data.batches import shared_memory
from effnetv2_jax.data.batches.channel import Channel
from effnetv2_jax.data.batches.examples import Examples, fill, parts
from effnetv2_jax.data.batches.reader import Reader
from effnetv2_jax.data.batches.unreadable import too_many
from effnetv2_jax.data.record import DataError, Source

Notes = dict[str, str]
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
    rows: range
    """Of every batch, those that its arrays hold."""
    max_unreadable: int


class Make(NamedTuple):
    """Rows of a batch to be made, in memory whose file descriptor follows."""

    number: int
    job: int
    batch: int
    rows: range


class End(NamedTuple):
    """Of a job: what was not begun of it need not be made."""

    job: int


class Done(NamedTuple):
    """The answer to a `Make`."""

    number: int
    notes: Notes
    error: BaseException | None


class _Account:
    """Of one task; the training process adds it to the run's."""

    def __init__(self, limit: int) -> None:
        """More notes than `limit` raise a `DataError`."""
        self.notes: Notes = {}
        self._limit = limit

    def add(self, key: str, reason: str) -> None:
        self.notes[key] = reason
        if len(self.notes) > self._limit:
            raise too_many(len(self.notes), key, reason)


def main() -> None:
    """Serves until the training process has ended, however it did."""
    try:
        _serve(Channel(socket.socket(fileno=int(sys.argv[1]))), int(sys.argv[2]))
    except (EOFError, ConnectionError):
        os._exit(0)
    except BaseException:
        # The usual end would wait for pictures under way.
        traceback.print_exc()
        os._exit(1)


def _serve(channel: Channel, threads: int) -> None:
    sources: dict[int, Source | DataError] = {}
    jobs: dict[int, Job] = {}
    decoding, answering = ThreadPoolExecutor(threads), ThreadPoolExecutor(1)

    def begin(task: Make, descriptor: int) -> None:
        job = jobs[task.job]
        arrays = shared_memory.arrays_in(descriptor, job.examples.shapes, len(job.rows))
        source, account = sources[job.source], _Account(job.max_unreadable)
        if isinstance(source, DataError):
            answering.submit(_answer, channel, Done(task.number, {}, source))
            return
        reader = Reader(source, max_labels=job.examples.data.max_labels, unreadable=account)

        def make(part: range) -> None:
            if task.job in jobs:
                fill(arrays, job.rows.start, job.examples, reader, task.batch, part)

        made = [decoding.submit(make, part) for part in parts(task.rows, threads)]
        answering.submit(finish, task.number, made, account.notes)

    def finish(number: int, made: list[Future[None]], notes: Notes) -> None:
        errors = [error for error in (future.exception() for future in made) if error is not None]
        _answer(channel, Done(number, notes, errors[0] if errors else None))

    while True:
        message, descriptor = channel.receive()
        match message:
            case Share(number, size):
                assert descriptor is not None
                with mmap.mmap(descriptor, size) as memory:
                    sources[number] = _open(memory)
            case Job() as job:
                jobs[job.number] = job
            case Make() as task:
                assert descriptor is not None
                begin(task, descriptor)
            case End(number):
                del jobs[number]
        if descriptor is not None:
            os.close(descriptor)


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


def _answer(channel: Channel, done: Done) -> None:
    try:
        error = done.error
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            # It cannot travel; some that can be pickled cannot be loaded again.
            error = RuntimeError(f"{type(error).__name__}: {error}")
        channel.send(done._replace(error=error))
    except ConnectionError:
        os._exit(0)
    except BaseException:
        # Nobody would wait for this thread's error.
        traceback.print_exc()
        os._exit(1)
