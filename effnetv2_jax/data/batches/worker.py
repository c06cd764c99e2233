"""A process that makes rows of batches for the training process; `workers` is the other end."""

import mmap
import os
import pickle
import socket
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from effnetv2_jax.data.batches import shared_memory
from effnetv2_jax.data.batches.channel import Channel
from effnetv2_jax.data.batches.examples import Examples, make_reader
from effnetv2_jax.data.batches.threads import Threads
from effnetv2_jax.data.batches.unreadable import Unreadable
from effnetv2_jax.data.record import DataError, Source

# What the training process sends.


class AddSource(NamedTuple):
    """A source, pickled in memory whose file descriptor comes with the message."""

    number: int
    size: int
    """In bytes."""


class StartJob(NamedTuple):
    """A stage or an evaluation begins; requests for rows of its batches follow."""

    number: int
    source: int
    examples: Examples
    rows: range
    """Of every batch, those that its arrays hold."""
    max_unreadable: int


class MakeRows(NamedTuple):
    """Rows of a batch, to be made in memory whose file descriptor comes with the message."""

    number: int
    job: int
    batch: int
    rows: range


class EndJob(NamedTuple):
    """No more rows of a job are wanted."""

    job: int


# What it answers.


class RowsMade(NamedTuple):
    """The answer to a `MakeRows`."""

    number: int
    unreadable: dict[str, str]
    """Pictures that could not be read, and why."""
    error: BaseException | None
    """Why not all rows could be made."""


def main() -> None:
    """Serves until the training process has ended, for whatever reason."""
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
    jobs: dict[int, _Job] = {}
    answering = ThreadPoolExecutor(1)
    while True:
        message, descriptor = channel.receive()
        match message:
            case AddSource(number, size):
                assert descriptor is not None
                with mmap.mmap(descriptor, size) as memory:
                    sources[number] = _load(memory)
            case StartJob() as start:
                jobs[start.number] = _Job(start, sources[start.source], threads)
            case MakeRows() as task:
                assert descriptor is not None
                answering.submit(_answer, channel, jobs[task.job].begin(task, descriptor))
            case EndJob(number):
                jobs.pop(number).close()
        if descriptor is not None:
            os.close(descriptor)


def _load(pickled: mmap.mmap) -> Source | DataError:
    try:
        source: Source = pickle.loads(pickled)
    except Exception as error:
        # Loading runs code of the source's own.
        return DataError(
            f"the source of pictures cannot be read by other processes ({error}); data.processes=0 "
            "reads it in the training process"
        )
    return source


class _Job:
    """Makes the rows that a stage or an evaluation asks for."""

    def __init__(self, start: StartJob, source: Source | DataError, threads: int) -> None:
        self._start = start
        self._source = source
        self._threads = Threads(start.examples, start.rows, threads=threads)

    def begin(self, task: MakeRows, descriptor: int) -> Callable[[], RowsMade]:
        """Starts making rows; the returned function waits for them."""
        if isinstance(self._source, DataError):
            refused = RowsMade(task.number, {}, self._source)
            return lambda: refused
        examples = self._start.examples
        unreadable = Unreadable(self._start.max_unreadable, log=False)
        reader = make_reader(self._source, examples, unreadable)
        arrays = shared_memory.arrays_in(descriptor, examples.shapes, len(self._start.rows))
        finish = self._threads.begin(arrays, reader, task.batch, task.rows)

        def made() -> RowsMade:
            try:
                finish()
            except BaseException as error:
                return RowsMade(task.number, unreadable.reasons, error)
            return RowsMade(task.number, unreadable.reasons, None)

        return made

    def close(self) -> None:
        self._threads.close()


def _answer(channel: Channel, made: Callable[[], RowsMade]) -> None:
    """Waits for rows and sends the answer."""
    try:
        answer = made()
        try:
            pickle.loads(pickle.dumps(answer.error))
        except Exception:
            # It cannot be sent; some that can be pickled cannot be loaded again.
            error = RuntimeError(f"{type(answer.error).__name__}: {answer.error}")
            answer = answer._replace(error=error)
        channel.send(answer)
    except ConnectionError:
        os._exit(0)
    except BaseException:
        # An executor's thread keeps its errors to itself.
        traceback.print_exc()
        os._exit(1)
