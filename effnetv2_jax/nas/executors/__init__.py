"""Who runs trials: an executor is handed directories, and says which of them have ended."""

from typing import NamedTuple, Protocol


class Ended(NamedTuple):
    """A trial that runs no longer."""

    directory: str
    error: str | None
    """What went wrong, where that is not the candidate's fault; None where it has its result."""


class Executor(Protocol):
    """Runs trials until each has its result, however often they are killed."""

    @property
    def workers(self) -> int:
        """How many trials it is handed at a time."""
        ...

    def start(self, directory: str) -> None:
        """Hands over a trial; never more than `workers` at a time."""
        ...

    def wait(self, seconds: float) -> list[Ended]:
        """Those that have ended since the last call; waits for one for so long."""
        ...

    def close(self) -> None:
        """Ends what runs, which saves its state first."""
        ...
