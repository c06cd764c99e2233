"""What a run is at, for whoever watches it, and what its time went to."""

import time
from collections.abc import Callable
from typing import Literal

Kind = Literal[
    "starting",
    "compiling",
    "waiting for input",
    "training",
    "evaluating",
    "saving",
    "writing the report",
]


class Activity:
    """Tells watchers what a run is at, and adds up the seconds of each kind.

    Args:
      watchers: called with what the run is at from now on, such as `the input of step 12`.
      clock: in seconds.
    """

    def __init__(
        self, *watchers: Callable[[str], None], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._watchers = watchers
        self._clock = clock
        self._kind: Kind = "starting"
        self._since = clock()
        self._spent: dict[str, float] = {}

    def now(self, kind: Kind, what: str) -> None:
        """Says what the run is at from now on."""
        self._account()
        self._kind = kind
        for watcher in self._watchers:
            watcher(what)

    def spent(self) -> dict[str, float]:
        """Seconds since the start by kind, and in `total`."""
        self._account()
        return self._spent | {"total": sum(self._spent.values())}

    def _account(self) -> None:
        now = self._clock()
        self._spent[self._kind] = self._spent.get(self._kind, 0.0) + now - self._since
        self._since = now
