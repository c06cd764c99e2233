"""Makes batches in other processes, which Python's interpreter lock does not hold up.

Each process has some threads. Rows of a batch are shared out among the processes, which write them
where the whole batch lies, so that no picture is copied. What a row holds depends on the examples
alone: see `examples`.
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
from effnetv2_jax.data.batches.examples import Batch, Examples, parts
from effnetv2_jax.data.batches.unreadable import Unreadable
from effnetv2_jax.data.batches.worker import Done, End, Job, Make, Share, main
from effnetv2_jax.data.record import DataError, Source
from effnetv2_jax.system.cores import cores

_FEW_CORES = 8
"""With fewer, and no number stated, threads of the training process decode."""
_THREADS = 4
"""Of a worker, where no number is stated; so many do not hold each other up much."""
_MOST = 32
"""Workers, where no number is stated."""
_LEAST_ROWS = 4
"""Of a batch that one worker makes: to ask for them takes as long as a small picture."""
_COMMAND = f"from {main.__module__} import main; main()"
_UNHEARD = {signal.SIGINT, signal.SIGTERM}
"""What the training process is asked to end by: it still wants pictures until it has."""


def make_workers(data: DataConfig) -> "Workers | contextlib.nullcontext[None]":
    """The workers that a config asks for; a context of None where it asks for none.

    Raises:
      DataError: it asks for some where there is no memory to share by file descriptors.
    """
    threads, count = data.threads or cores(), data.processes
    if count is None:
        useful = threads >= _FEW_CORES and shared_memory.available()
        count = min(_MOST, threads // _THREADS) if useful else 0
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
    ) -> "Batches":
        """Makes batches of a stage or evaluation; see `threads.Threads`, which is used alike.

        Raises:
          DataError: the source cannot be sent to another process.
        """
        with self._lock:
            number = next(self._numbers)
            job = Job(number, self._share(source), examples, rows, unreadable.limit)
        for worker in self._workers:
            worker.send(job)
        return Batches(self._workers, job, unreadable, self._numbers)

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
                worker.send(Share(len(self._sources), len(pickled)), descriptor)
        finally:
            os.close(descriptor)
        self._sources.append(source)
        return len(self._sources) - 1

    def _receive(self) -> None:
        """Takes what the workers answer, until all of them have ended."""
        while self._selector.get_map():
            for key, _ in self._selector.select():
                if not key.data.receive():
                    self._selector.unregister(key.fileobj)


class Batches:
    """What `Workers.begin` returns."""

    def __init__(
        self,
        workers: "list[_Worker]",
        job: Job,
        unreadable: Unreadable,
        numbers: Iterator[int],
    ) -> None:
        self._workers = workers
        self._job = job
        self._unreadable = unreadable
        self._numbers = numbers
        self._parts = parts(job.rows, min(len(workers), -(-len(job.rows) // _LEAST_ROWS)))
        self._turn = 0

    def begin(self, batch: int) -> Callable[[], Batch]:
        """Begins a batch; what is returned waits for it."""
        shapes, rows = self._job.examples.shapes, len(self._job.rows)
        descriptor = shared_memory.allocate(shared_memory.size_of(shapes, rows))
        try:
            futures = [
                self._next_worker().make(
                    Make(next(self._numbers), self._job.number, batch, part), descriptor
                )
                for part in self._parts
            ]
            arrays = shared_memory.arrays_in(descriptor, shapes, rows)
        finally:
            os.close(descriptor)

        def made() -> Batch:
            try:
                answers = [future.result() for future in futures]
            finally:
                futures.clear()  # Of what failed, an error's traceback would keep the memory.
            for answer in answers:
                for key, reason in answer.notes.items():
                    self._unreadable.add(key, reason)
            for answer in answers:
                if answer.error is not None:
                    raise answer.error
            return arrays

        return made

    def close(self) -> None:
        """Makes no more of them; the processes end what they are at."""
        for worker in self._workers:
            worker.send(End(self._job.number))

    def _next_worker(self) -> "_Worker":
        self._turn += 1
        return self._workers[self._turn % len(self._workers)]


class _Worker:
    """One process, as seen from here."""

    def __init__(self, threads: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs, _blocked(_UNHEARD):  # Which is inherited.
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
                    "JAX_PLATFORMS": "cpu",  # Grain imports JAX; the devices are not theirs.
                },
            )
        self.channel = Channel(ours)
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Done]] = {}
        self._ended = False

    def send(self, message: Any, descriptor: int | None = None) -> None:
        """Says something, with a file descriptor, unless the process has ended."""
        # A process that ended is told of by `receive`.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.channel.send(message, descriptor)

    def make(self, task: Make, descriptor: int) -> Future[Done]:
        """Has rows made."""
        future: Future[Done] = Future()
        with self._lock:
            self._waiting[task.number] = future
            ended = self._ended
        if ended:
            self._fail()
        else:
            self.send(task, descriptor)
        return future

    def receive(self) -> bool:
        """Takes an answer; False if the process has ended."""
        try:
            done, _ = self.channel.receive()
        except Exception:
            # Where it has not ended, it cannot be understood.
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
        advice = "its own words are above, and data.processes=0 does without it"
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
