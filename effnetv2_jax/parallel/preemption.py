"""Stops a run in time when its machine is taken away, or when someone presses Ctrl-C."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils


class Preempted(BaseException):
    """Says that the run has to save its state and end.

    Not an `Exception`, as KeyboardInterrupt is none: nothing that handles errors may swallow it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_status = 128 + number
        """What shells and schedulers take for the end by this signal."""


class Preemption:
    """Hears SIGTERM, and in a run of one process SIGINT, for the length of a context.

    With one process, a signal raises `Preempted` where the program waits, and otherwise as soon as
    it next does. With several, a signal to any of them lets all of them stop after the same step,
    which JAX's preemption service agrees on. A second signal has its usual effect.
    """

    def __init__(self) -> None:
        self._several = jax.process_count() > 1
        self._checks = 0
        self._received: int | None = None
        self._waits = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # Python lets only the main thread listen; JAX's service has a listener of its own.
        if not self._several and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """What is done inside may be broken off."""
        self._raise_if_received()
        self._waits = True
        try:
            yield
        finally:
            self._waits = False

    def check(self) -> None:
        """Raises `Preempted` if the run is to end here; every process calls this after every step.

        The service stops all processes at the call after the farthest one's. It has to count calls,
        not steps: those of a continued run do not begin at 1, and a rollback repeats some.
        """
        self._checks += 1
        if self._several and multihost_utils.reached_preemption_sync_point(self._checks):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # The service would swallow a second one.
            raise Preempted(signal.SIGTERM)
        self._raise_if_received()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        self._restore()
        if self._waits:
            raise Preempted(number)

    def _raise_if_received(self) -> None:
        if self._received is not None:
            raise Preempted(self._received)

    def _restore(self) -> None:
        while self._before:
            number, before = self._before.popitem()
            signal.signal(number, before)
