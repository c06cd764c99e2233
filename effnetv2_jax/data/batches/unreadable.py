"""An account of the pictures that cannot be read."""

import logging
import threading

from effnetv2_jax.data.record import DataError

_log = logging.getLogger(__name__)


def too_many(count: int, key: str, reason: str) -> DataError:
    """An error that tells of `count` unreadable pictures, and of the last one."""
    return DataError(
        f"{count} pictures cannot be read, the last one {key}: {reason}. Repair or remove them "
        "(the log names them all), or raise data.max_unreadable"
    )


class Unreadable:
    """Counts the pictures that could not be read; safe to share between threads and loaders."""

    def __init__(self, limit: int) -> None:
        """One unreadable picture more than `limit` raises a `DataError`."""
        self.limit = limit
        self._reasons: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, key: str, reason: str) -> None:
        """Notes a picture, and logs it unless it is known already."""
        with self._lock:
            if key in self._reasons:
                return
            self._reasons[key] = reason
            count = len(self._reasons)
        if count > self.limit:
            raise too_many(count, key, reason)
        _log.warning("unreadable picture %d: %s: %s", count, key, reason)

    def __len__(self) -> int:
        """How many different pictures could not be read."""
        return len(self._reasons)

    @property
    def reasons(self) -> dict[str, str]:
        """Why each picture could not be read, by its key."""
        with self._lock:
            return dict(self._reasons)
