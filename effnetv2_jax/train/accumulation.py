"""Gradient accumulation: a batch goes through the network in parts, one after the other."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import dtypes, lax

Examples = TypeVar("Examples")
Result = TypeVar("Result")


def mean_over_parts(
    function: Callable[[Examples], Result], whole: Examples, *, parts: int, group: int
) -> Result:
    """The mean of a function's results over parts of its examples.

    Of the groups of neighbouring examples, part p has the groups p, p + parts, p + 2 parts and so
    on: where devices hold whole sets of them, every device takes its share of every part from what
    it has.

    Args:
      function: of a tree of arrays `[B / parts, ...]`, to a tree of arrays. Of those that are not
        floating, such as counters, the last part's are taken.
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

    split_up = jax.tree.map(split, whole)
    shapes = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], split_up))
    leaves, structure = jax.tree.flatten(shapes)
    averaged = [bool(jnp.issubdtype(leaf.dtype, jnp.floating)) for leaf in leaves]

    def add(sums: list[jax.Array], part: Any) -> tuple[list[jax.Array], list[jax.Array]]:
        results = list(zip(jax.tree.leaves(function(part)), averaged, strict=True))
        floating = [result for result, is_averaged in results if is_averaged]
        others = [result for result, is_averaged in results if not is_averaged]
        return list(map(jnp.add, sums, floating)), others

    zeros = [jnp.zeros(leaf.shape, leaf.dtype) for leaf, mean in zip(leaves, averaged) if mean]
    sums, others = lax.scan(add, zeros, split_up)
    means, lasts = iter([total / parts for total in sums]), iter([leaf[-1] for leaf in others])
    return jax.tree.unflatten(structure, [next(means if mean else lasts) for mean in averaged])
