"""Runs trials until each has its result: starts them, and tries again those that failed."""

import time
from collections.abc import Callable

from etils import epath

from effnetv2_jax.nas.executors import Ended, Executor
from effnetv2_jax.nas.records import Result, StudyError, read_result

_RETRY_SECONDS = (1.0, 5.0, 15.0, 30.0)
"""Before another start: after the first failure in a row, after the second, and so on."""


class Runner:
    """Hands directories to an executor, in their order, and gives back the results.

    Args:
      executor: runs them.
      at_most: at a time; None takes the executor's workers.
      max_failures: so many failures in a row are an error.
      report: is told of a failure, in a line.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        at_most: int | None = None,
        max_failures: int,
        report: Callable[[str], None],
    ) -> None:
        self._executor = executor
        self._room = min(executor.workers, at_most or executor.workers)
        self._max_failures, self._report = max_failures, report
        self._waiting: list[tuple[float, str]] = []
        """When to start what."""
        self._running: set[str] = set()
        self._failures: list[str] = []
        """Since a trial last had a result."""

    @property
    def running(self) -> int:
        """How many run."""
        return len(self._running)

    @property
    def busy(self) -> bool:
        """Whether something runs or waits."""
        return bool(self._running or self._waiting)

    def add(self, directory: epath.Path) -> None:
        """Adds a trial behind the others."""
        self._waiting.append((0.0, str(directory)))

    def start(self) -> None:
        """Starts what is due, as far as there is room."""
        now = time.monotonic()
        due = [entry for entry in self._waiting if entry[0] <= now]
        for entry in due[: self._room - len(self._running)]:
            self._waiting.remove(entry)
            self._running.add(entry[1])
            self._executor.start(entry[1])

    def wait(self, seconds: float) -> list[Result]:
        """The results that came since the last call; waits for one for so long.

        Raises:
          StudyError: too many failures in a row.
        """
        found = (self._end(ended) for ended in self._executor.wait(seconds))
        return [result for result in found if result is not None]

    def _end(self, ended: Ended) -> Result | None:
        self._running.remove(ended.directory)
        error = ended.error
        if error is None:
            try:
                if (result := read_result(epath.Path(ended.directory))) is not None:
                    self._failures = []
                    return result
                error = "it ended without a result"
            except (OSError, StudyError) as fault:
                error = str(fault)
        self.fail(f"{ended.directory}: {error}")
        delay = _RETRY_SECONDS[min(len(self._failures), len(_RETRY_SECONDS)) - 1]
        self._waiting.append((time.monotonic() + delay, ended.directory))
        return None

    def fail(self, failure: str) -> None:
        """Counts a failure in the row of those since a trial last had a result.

        Raises:
          StudyError: there are too many.
        """
        self._failures.append(failure)
        if len(self._failures) >= self._max_failures:
            raise StudyError(
                f"{len(self._failures)} failures in a row (search.max_failures); nothing is lost: "
                "once this is mended, the same command goes on\n  "
                + "\n  ".join(dict.fromkeys(self._failures))
            )
        self._report(f"failed, and is tried again: {failure}")
