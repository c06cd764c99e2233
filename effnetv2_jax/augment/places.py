"""The random numbers of a batch's examples, each by its place."""

from typing import NamedTuple

import jax
from jaxtyping import PRNGKeyArray


class Part(NamedTuple):
    """Which of a batch some examples are, if they are not all of it."""

    first: int
    """Place of the first one; the others follow it."""
    whole: int
    """Examples of the batch."""


def keys_at(key: PRNGKeyArray, count: int, part: Part | None) -> jax.Array:
    """`[count]` keys of examples, the same whether they are a part of their batch or all of it."""
    if part is None:
        return jax.random.split(key, count)
    return jax.random.split(key, part.whole)[part.first : part.first + count]
