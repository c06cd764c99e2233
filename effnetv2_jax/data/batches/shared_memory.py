"""Arrays of a batch in memory that several processes write to."""

import math
import mmap
import os

import numpy as np

from effnetv2_jax.data.batches.examples import HostBatch, Shapes

_ALIGNMENT = 64


def available() -> bool:
    """Whether this system has such memory, and lets this process have it."""
    try:
        os.close(allocate(1))
    except (AttributeError, OSError):
        return False
    return True


def share(data: bytes) -> int:
    """A file descriptor of memory that holds the data; the caller closes it."""
    descriptor = allocate(len(data))
    with mmap.mmap(descriptor, len(data)) as memory:
        memory[:] = data
    return descriptor


def allocate(size: int) -> int:
    """A file descriptor of so many bytes of memory; the caller closes it.

    It does not lie in /dev/shm, for which containers often leave no more than 64 MB.
    """
    descriptor = os.memfd_create("effnetv2_jax", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, size)
    return descriptor


def size_of(shapes: Shapes, rows: int) -> int:
    """Bytes of a batch of so many rows."""
    return sum(_padded(shape, dtype, rows) for shape, dtype in shapes.values())


def arrays_in(descriptor: int, shapes: Shapes, rows: int) -> HostBatch:
    """The arrays of a batch; their memory is given back when the last of them is gone."""
    memory = mmap.mmap(descriptor, size_of(shapes, rows))
    batch, start = {}, 0
    for name, (shape, dtype) in shapes.items():
        count = rows * math.prod(shape)
        array = np.frombuffer(memory, dtype, count, start)
        batch[name] = array.reshape(rows, *shape)
        start += _padded(shape, dtype, rows)
    return batch


def _padded(shape: tuple[int, ...], dtype: type, rows: int) -> int:
    size = rows * math.prod(shape) * np.dtype(dtype).itemsize
    return -(-size // _ALIGNMENT) * _ALIGNMENT
