"""Reads a picture's file, which may be anything by the time that it is read."""

import errno
import os
import stat

from effnetv2_jax.data.pictures.limits import MAX_BYTES


def read_picture(path: str) -> bytes:
    """The bytes of a file, in memory that its size bounds, and without waiting for a pipe.

    Raises:
      OSError: it cannot be read, is no regular file or has more than `MAX_BYTES`; its `filename` is
        the path.
    """
    with open(path, "rb", opener=_open) as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", path)
        if status.st_size > MAX_BYTES:
            raise OSError(errno.EFBIG, f"it has more than {MAX_BYTES:,} bytes", path)
        # Of a file that grows meanwhile one byte more, lest what was read pass for the whole.
        return stream.read(status.st_size + 1)


def _open(path: str, flags: int) -> int:
    # Opening a pipe would wait for a writer; regular files do not know the difference.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
