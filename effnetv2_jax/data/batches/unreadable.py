"""Counts and logs the pictures that cannot be read."""

import logging
import threading

from effnetv2_jax.data.record import DataError

_log = logging.getLogger(__name__)


class Unreadable:
    """Counts the pictures that could not be read; safe to share between threads and loaders."""

    def __init__(self, limit: int, *, log: bool = True) -> None:
        """One unreadable picture more than `limit` raises a `DataError`."""
        self.limit = limit
        self._log = log
        self._reasons: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, key: str, reason: str) -> None:
        """Counts a picture, and logs it unless it is known already.

        Raises:
          DataError: there are more than `limit`.
        """
        with self._lock:
            if key in self._reasons:
                return
            self._reasons[key] = reason
            count = len(self._reasons)
        if count > self.limit:
            raise DataError(
                f"{count} pictures cannot be read, the last one {key}: {reason}. Repair or remove "
                "them (the log names them all), or raise data.max_unreadable"
            )
        if self._log:
            _log.warning("unreadable picture %d: %s: %s", count, key, reason)

    def __len__(self) -> int:
        """How many different pictures could not be read."""
        return len(self._reasons)

    @property
    def reasons(self) -> dict[str, str]:
        """Why each picture could not be read, by its key."""
        with self._lock:
            return dict(self._reasons)
