"""Shows how a run goes: a status line, lines that stay, and what is waited for."""

import contextlib
import dataclasses
import math
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

LINE_SECONDS = 10.0
"""Between two status lines where each one stays."""
LIVE_SECONDS = 0.5
"""Likewise where it is overwritten."""
TICK_SECONDS = 10.0
"""Of silence, after which it is said what is waited for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """Where a run stands."""

    step: int
    """Steps done."""
    total_steps: int
    stage: int
    """The current stage, counted from 0."""
    num_stages: int
    image_size: int
    """Height and width of the current stage's images in pixels."""
    images_per_second: float | None
    """Over all devices; None before it is known."""
    loss: float
    learning_rate: float
    seconds_left: float | None = None
    """Estimate for the rest of the run, if there is one."""

    def __str__(self) -> str:
        speed = "?" if self.images_per_second is None else f"{self.images_per_second:.0f}"
        left = "?" if self.seconds_left is None else clock(self.seconds_left)
        return (
            f"stage {self.stage + 1}/{self.num_stages} {self.image_size} px"
            f" | step {self.step}/{self.total_steps}"
            f" | {speed} images/s"
            f" | loss {self.loss:.4f}"
            f" | lr {self.learning_rate:.2e}"
            f" | ETA {left}"
        )


class Progress:
    """Shows a status line that is overwritten on a terminal and printed line by line elsewhere.

    While `ticking`, a thread says what is being waited for whenever nothing was shown for long.

    Args:
      stream: where to; None is the standard error stream.
      enabled: False shows nothing, as all processes of a run do except the first.
      clock: in seconds.
    """

    def __init__(
        self,
        *,
        stream: TextIO | None = None,
        enabled: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self.enabled = enabled
        self._live = self._stream.isatty()
        self._shown = 0
        self._clock = clock
        self._lock = threading.RLock()
        self._written = self._began = clock()
        self._status = -math.inf
        self._what = ""

    @property
    def due(self) -> bool:
        """Whether it is time for another status."""
        return self._clock() - self._status >= (LIVE_SECONDS if self._live else LINE_SECONDS)

    def show(self, status: object) -> None:
        """Replaces the status line by the text of a `Status`, or of whatever else has one."""
        self._status = self._clock()
        self._line(str(status))

    def message(self, text: str) -> None:
        """Prints a line that stays, above the status line."""
        if not self.enabled:
            return
        with self._lock:
            if self._shown:
                self._stream.write("\r" + " " * self._shown + "\r")
                self._shown = 0
            self._stream.write(text + "\n")
            self._stream.flush()
            self._written = self._clock()

    def waiting(self, what: str) -> None:
        """Says what is waited for from now on, such as `the evaluation after step 9`."""
        self._what, self._began = what, self._clock()

    def tick(self) -> None:
        """Shows what is waited for, if nothing has been shown for `TICK_SECONDS`."""
        now = self._clock()
        if self._what and now - max(self._written, self._began) >= TICK_SECONDS:
            self._line(f"... {self._what}: {clock(now - self._began)} so far")

    @contextlib.contextmanager
    def ticking(self) -> Iterator[None]:
        """Calls `tick` from a thread."""
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(1):
                self.tick()

        thread = threading.Thread(target=run, name="ticker", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def close(self) -> None:
        """Ends the status line, so that what follows starts on a line of its own."""
        with self._lock:
            if self._shown:
                self._stream.write("\n")
                self._stream.flush()
                self._shown = 0

    def _line(self, line: str) -> None:
        if not self.enabled:
            return
        with self._lock:
            if self._live:
                # A line that wraps could not be overwritten.
                line = line[: shutil.get_terminal_size().columns - 1]
                self._stream.write("\r" + line.ljust(self._shown))
                self._shown = len(line)
            else:
                self._stream.write(line + "\n")
            self._stream.flush()
            self._written = self._clock()


def clock(seconds: float) -> str:
    """A duration as h:mm:ss."""
    minutes, seconds_past = divmod(round(seconds), 60)
    hours, minutes_past = divmod(minutes, 60)
    return f"{hours}:{minutes_past:02}:{seconds_past:02}"
