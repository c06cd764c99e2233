"""Reports a run that hangs."""

import faulthandler
import sys
import threading
import time
from types import TracebackType
from typing import Self, TextIO


class Watchdog:
    """A thread that reports when nothing has happened for too long, and what each thread is doing.

    It only reports: what looks like a hang may be a long compilation.

    Args:
      seconds: how long nothing may happen; reported again each time as long passes.
      stream: a file with a descriptor; None is standard error.
    """

    def __init__(self, seconds: float, *, stream: TextIO | None = None) -> None:
        self._seconds = seconds
        self._stream = stream
        self._now = "the start"
        self._since = self._reported = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def now(self, what: str) -> None:
        """Says what the run is at from now on, such as `the input of step 12`."""
        self._now, self._since = what, time.monotonic()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(self._seconds / 20):
            now = time.monotonic()
            if now - max(self._since, self._reported) >= self._seconds:
                self._report(now - self._since)
                self._reported = now

    def _report(self, seconds: float) -> None:
        stream = self._stream or sys.stderr
        print(
            f"\nWARNING: {self._now} has taken {seconds:.0f} s (config.faults.hang_seconds); "
            "this is what every thread is doing:",
            file=stream,
            flush=True,
        )
        faulthandler.dump_traceback(stream)
