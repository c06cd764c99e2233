"""What the processes of a run agree on, so that none waits for others that took another branch.

With one process these functions do nothing. With several, all have to call them in the same order.
"""

import contextlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils


def all_true(value: bool) -> bool:
    """Whether it is true in all processes."""
    if jax.process_count() == 1:
        return value
    return bool(np.all(multihost_utils.process_allgather(np.array(value))))


def of_first_process(numbers: Sequence[int], *, most: int) -> list[int]:
    """The first process's numbers, at most so many of them, none negative."""
    if jax.process_count() == 1:
        return list(numbers[:most])
    row = np.full(most, -1, np.int32)
    row[: len(numbers)] = numbers[:most]
    return [int(number) for number in multihost_utils.broadcast_one_to_all(row) if number >= 0]


@contextlib.contextmanager
def all_or_none(error: type[Exception], message: str) -> Iterator[None]:
    """Raises in every process if what is inside raises in one of them.

    Args:
      error, message: what the others raise, whose own part went well.
    """
    try:
        yield
    except Exception:
        all_true(False)
        raise
    if not all_true(True):
        raise error(f"{message}; its own output says why")
