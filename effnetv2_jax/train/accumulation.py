"""Gradient accumulation: a batch goes through the network in parts, one after the other."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import dtypes, lax

Part = TypeVar("Part")
Result = TypeVar("Result")


def mean_over_parts(
    function: Callable[[Part], Result], whole: Part, *, parts: int, group: int
) -> Result:
    """The mean of a function's results over parts of its examples.

    Of the groups of neighbouring examples, part p has the groups p, p + parts, p + 2 parts and so
    on: where devices hold whole sets of them, every device takes its share of every part from what
    it has.

    Args:
      function: of a tree of arrays `[B / parts, ...]`, to a tree of floating arrays.
      whole: tree of arrays `[B, ...]` and random keys, of which each part gets one of its own.
      parts: 1 calls the function on the whole itself.
      group: examples that stay together; `parts * group` divides B.
    """
    if parts == 1:
        return function(whole)

    def split(leaf: jax.Array) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, dtypes.prng_key):
            return jax.random.split(leaf, parts)
        groups = leaf.reshape(-1, parts, group, *leaf.shape[1:])
        return groups.swapaxes(0, 1).reshape(parts, -1, *leaf.shape[1:])

    def add(total: Result, part: Part) -> tuple[Result, None]:
        return jax.tree.map(jnp.add, total, function(part)), None

    split_up = jax.tree.map(split, whole)
    shapes = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], split_up))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, _ = lax.scan(add, zeros, split_up)
    return jax.tree.map(lambda leaf: leaf / parts, total)
