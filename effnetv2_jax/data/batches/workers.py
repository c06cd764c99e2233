"""Makes batches in other processes, which Python's interpreter lock does not hold up.

Each process has some threads. The rows of a batch are divided among the processes, which write them
into memory that the training process shares, so that no picture is copied. What a row holds depends
on the examples alone: see `examples`.
"""

import contextlib
import itertools
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Self

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data.batches import shared_memory
from effnetv2_jax.data.batches.channel import Channel
from effnetv2_jax.data.batches.examples import Examples, HostBatch, split_rows
from effnetv2_jax.data.batches.unreadable import Unreadable
from effnetv2_jax.data.batches.worker import (
    AddSource,
    EndJob,
    MakeRows,
    RowsMade,
    StartJob,
    main,
)
from effnetv2_jax.data.record import DataError, Source
from effnetv2_jax.system.cores import cores

_MIN_CORES = 8
"""With fewer, and no number stated, threads of the training process decode."""
_THREADS = 4
"""Of a worker, where no number is stated; so many seldom wait for the interpreter lock."""
_MAX_WORKERS = 32
"""Where no number is stated."""
_MIN_ROWS = 4
"""Of a batch that one worker makes: a request takes as long as a small picture."""
_COMMAND = f"from {main.__module__} import main; main()"
_BLOCKED = {signal.SIGINT, signal.SIGTERM}
"""They ask the training process to end, which needs pictures until it has."""


def make_workers(data: DataConfig) -> "Workers | contextlib.nullcontext[None]":
    """The workers that a config asks for; a context of None where it asks for none.

    Raises:
      DataError: it asks for some where there is no memory to share by file descriptors.
    """
    threads, count = data.threads or cores(), data.processes
    if count is None:
        useful = threads >= _MIN_CORES and shared_memory.available()
        count = min(_MAX_WORKERS, threads // _THREADS) if useful else 0
    if not count:
        return contextlib.nullcontext()
    if not shared_memory.available():
        raise DataError(
            f"data.processes={count} needs memfd_create, which this system does not have or does "
            "not allow; with 0, threads decode"
        )
    return Workers(count, threads=-(-threads // count))


class Workers:
    """Processes that make batches for any number of stages and evaluations; a context."""

    def __init__(self, processes: int, *, threads: int = 1) -> None:
        """Starts the processes, with so many threads each; does not wait for them."""
        self._workers = [_Worker(threads) for _ in range(processes)]
        self._selector = selectors.DefaultSelector()
        for worker in self._workers:
            self._selector.register(worker.channel, selectors.EVENT_READ, worker)
        self._sources: list[Source] = []
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._receiver = threading.Thread(target=self._receive, name="decode", daemon=True)
        self._receiver.start()

    def begin(
        self, source: Source, examples: Examples, rows: range, unreadable: Unreadable
    ) -> "WorkerBatches":
        """Prepares the batches of a stage or an evaluation.

        Args:
          rows: of every batch, those that are made.
          unreadable: counts unreadable pictures.

        Raises:
          DataError: the source cannot be sent to another process.
        """
        with self._lock:
            number = next(self._numbers)
            job = StartJob(number, self._share(source), examples, rows, unreadable.limit)
        for worker in self._workers:
            worker.send(job)
        return WorkerBatches(self._workers, job, unreadable, self._numbers)

    def close(self) -> None:
        """Ends the processes."""
        for worker in self._workers:
            worker.end()
        self._receiver.join()
        self._selector.close()
        for worker in self._workers:
            worker.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _share(self, source: Source) -> int:
        """Sends a source once."""
        for number, known in enumerate(self._sources):
            if known is source:
                return number
        try:
            pickled = pickle.dumps(source)
        except Exception as error:
            raise DataError(
                f"{source.name} cannot be read by other processes ({error}); "
                "data.processes=0 reads it in this one"
            ) from error
        descriptor = shared_memory.share(pickled)
        try:
            for worker in self._workers:
                worker.send(AddSource(len(self._sources), len(pickled)), descriptor)
        finally:
            os.close(descriptor)
        self._sources.append(source)
        return len(self._sources) - 1

    def _receive(self) -> None:
        """Receives the workers' answers until all of them have ended."""
        while self._selector.get_map():
            for key, _ in self._selector.select():
                if not key.data.receive():
                    self._selector.unregister(key.fileobj)


class WorkerBatches:
    """Batches made by workers; used as `threads.ThreadBatches` is."""

    def __init__(
        self,
        workers: "list[_Worker]",
        job: StartJob,
        unreadable: Unreadable,
        numbers: Iterator[int],
    ) -> None:
        self._workers = workers
        self._job = job
        self._unreadable = unreadable
        self._numbers = numbers
        self._shares = split_rows(job.rows, min(len(workers), -(-len(job.rows) // _MIN_ROWS)))
        self._turn = 0

    def begin(self, batch: int) -> Callable[[], HostBatch]:
        """Starts making a batch; the returned function waits for it, and raises its first error."""
        shapes, rows = self._job.examples.shapes, len(self._job.rows)
        descriptor = shared_memory.allocate(shared_memory.size_of(shapes, rows))
        try:
            futures = [
                self._next_worker().make(
                    MakeRows(next(self._numbers), self._job.number, batch, share), descriptor
                )
                for share in self._shares
            ]
            arrays = shared_memory.arrays_in(descriptor, shapes, rows)
        finally:
            os.close(descriptor)

        def made() -> HostBatch:
            try:
                answers = [future.result() for future in futures]
            finally:
                futures.clear()  # An error's traceback would keep them, and so the memory.
            for answer in answers:
                for key, reason in answer.unreadable.items():
                    self._unreadable.add(key, reason)
            for answer in answers:
                if answer.error is not None:
                    raise answer.error
            return arrays

        return made

    def close(self) -> None:
        """Makes no more batches; the processes end with the pictures they are at."""
        for worker in self._workers:
            worker.send(EndJob(self._job.number))

    def _next_worker(self) -> "_Worker":
        self._turn += 1
        return self._workers[self._turn % len(self._workers)]


class _Worker:
    """One process, as the training process sees it."""

    def __init__(self, threads: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs, _blocked(_BLOCKED):  # The process inherits this.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _COMMAND, str(theirs.fileno()), str(threads)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # An interrupt from the keyboard is for the training process, which ends these.
                start_new_session=True,
                env=os.environ
                | {
                    "PYTHONPATH": os.pathsep.join(
                        path or os.getcwd() for path in sys.path if isinstance(path, str)
                    ),
                    # A source from outside may import JAX; the devices are the training process's.
                    "JAX_PLATFORMS": "cpu",
                },
            )
        self.channel = Channel(ours)
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[RowsMade]] = {}
        self._ended = False

    def send(self, message: Any, descriptor: int | None = None) -> None:
        """Sends a message, with a file descriptor, unless the process has ended."""
        # `receive` reports a process that has ended.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.channel.send(message, descriptor)

    def make(self, task: MakeRows, descriptor: int) -> Future[RowsMade]:
        """Has rows made."""
        future: Future[RowsMade] = Future()
        with self._lock:
            self._waiting[task.number] = future
            ended = self._ended
        if ended:
            self._fail()
        else:
            self.send(task, descriptor)
        return future

    def receive(self) -> bool:
        """Receives an answer; False if the process has ended."""
        try:
            done, _ = self.channel.receive()
        except Exception:
            # If it has not ended, its answer makes no sense.
            self._process.kill()
            with self._lock:
                self._ended = True
            self._fail()
            return False
        with self._lock:
            future = self._waiting.pop(done.number)
        future.set_result(done)
        return True

    def _fail(self) -> None:
        status = self._process.wait()
        advice = "its error output is above, and data.processes=0 does without it"
        if status == -signal.SIGKILL:
            advice = "if memory has run out, set data.processes or data.threads lower"
        error = DataError(f"a process that decodes pictures ended with status {status}; {advice}")
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_exception(error)

    def end(self) -> None:
        """Asks the process to end."""
        with contextlib.suppress(OSError):
            self.channel.end()

    def wait(self) -> None:
        """Waits until it has ended."""
        self._process.wait()
        self.channel.close()


@contextlib.contextmanager
def _blocked(signals: set[signal.Signals]) -> Iterator[None]:
    """Holds signals back from this thread."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
