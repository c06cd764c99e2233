"""The line that shows the progress of a run."""

import dataclasses
import shutil
import sys
from typing import TextIO


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

    Args:
      stream: where to; None is the standard error stream.
      enabled: False shows nothing, as all processes of a run do except the first.
    """

    def __init__(self, *, stream: TextIO | None = None, enabled: bool = True) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._enabled = enabled
        self._live = self._stream.isatty()
        self._shown = 0

    def show(self, status: object) -> None:
        """Replaces the status line by the text of a `Status`, or of whatever else has one."""
        if not self._enabled:
            return
        line = str(status)
        if self._live:
            # A line that wraps could not be overwritten.
            line = line[: shutil.get_terminal_size().columns - 1]
            self._stream.write("\r" + line.ljust(self._shown))
            self._shown = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def message(self, text: str) -> None:
        """Prints a line that stays, above the status line."""
        if not self._enabled:
            return
        if self._shown:
            self._stream.write("\r" + " " * self._shown + "\r")
            self._shown = 0
        self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Ends the status line, so that what follows starts on a line of its own."""
        if self._shown:
            self._stream.write("\n")
            self._stream.flush()
            self._shown = 0


def clock(seconds: float) -> str:
    """A duration as h:mm:ss."""
    minutes, seconds_past = divmod(round(seconds), 60)
    hours, minutes_past = divmod(minutes, 60)
    return f"{hours}:{minutes_past:02}:{seconds_past:02}"
