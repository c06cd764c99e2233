"""The line that shows the progress of a search."""

import time

from effnetv2_jax.nas.study import Standing
from effnetv2_jax.outputs.progress import Progress, clock

_LIVE_SECONDS = 1.0
_PRINTED_SECONDS = 30.0
"""Between two lines where they stay, as in a log."""


class LiveLine:
    """Shows where a search stands: on a terminal every second, elsewhere every half minute.

    Args:
      progress: shows it.
      live: whether its line is overwritten.
    """

    def __init__(self, progress: Progress, *, live: bool) -> None:
        self._progress = progress
        self._interval = _LIVE_SECONDS if live else _PRINTED_SECONDS
        self._shown = -self._interval
        self._began: tuple[float, int] | None = None
        """When this start began, and how many trials were done then."""

    def __call__(self, standing: Standing) -> None:
        """Shows it if it is time."""
        now = time.monotonic()
        if self._began is None:
            self._began = now, standing.done
        if now - self._shown >= self._interval:
            self._shown = now
            self._progress.show(text(standing, self._seconds_left(standing, now)))

    def _seconds_left(self, standing: Standing, now: float) -> float | None:
        assert self._began is not None
        began, done_before = self._began
        done = standing.done - done_before
        return (now - began) / done * (standing.trials - standing.done) if done else None


def text(standing: Standing, seconds_left: float | None) -> str:
    """The line."""
    best = standing.best
    shown = "none yet"
    if best is not None:
        shown = f"reward {best.reward:.4f} (trial {best.number}, top-1 {best.accuracy:.2%})"
    given_up = f", {standing.pruned} given up" if standing.pruned else ""
    left = "?" if seconds_left is None else clock(seconds_left)
    return (
        f"{standing.done}/{standing.trials} trials done{given_up} | {standing.running} running"
        f" | best {shown} | ETA {left}"
    )
