"""Whether an error while reading is of the file, or of the way to it."""

import errno
import re

_NETWORK = re.compile(r"(aiohttp|gcsfs|google\.(api_core|auth|cloud)|requests|urllib3)(\.|$)")
"""Packages that read over a network; their errors have no classes in common."""
_SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_PASSING = (
    *_SHORTAGE,
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
    # What a network file system says, for one, that had no answer in time.
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETRESET,
    errno.ENETUNREACH,
    errno.EPIPE,
)


def is_passing(error: BaseException | None) -> bool:
    """Whether to read again may go well."""
    if isinstance(error, ConnectionError | TimeoutError | MemoryError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _PASSING
    missing = isinstance(error, FileNotFoundError | PermissionError)
    return not missing and _NETWORK.match(type(error).__module__) is not None


def is_shortage(error: BaseException | None) -> bool:
    """Whether this machine lacks what reading needs, such as memory or room for open files."""
    return isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno in _SHORTAGE
    )
