"""Checksums of a state, computed where it lies: on the devices, however it is spread over them."""

import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_MASK = 2**32 - 1


def named_leaves(tree: Any) -> dict[tuple[str, ...], Any]:
    """The leaves in flattening order, each under the names that lead to it."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path): leaf
        for path, leaf in leaves
    }


def state_checksum(state: Any) -> dict[str, int]:
    """Checksums of a tree of arrays, one for each of its fields.

    They depend on names, shapes, dtypes and every bit of the values, and on nothing else: integers
    are added up, so neither devices nor shardings nor the order of the leaves can change the sum.
    Any change within one element of a leaf changes it for certain; others remain unnoticed once in
    2**32 times. Blocks until the arrays are computed, and copies none of them.

    Args:
      state: a dict or a dataclass of any trees of arrays of numbers or booleans. With several
        processes all of them must make the same calls.

    Returns:
      32 bits for each field that holds any array, by its name.
    """
    leaves = named_leaves(state)
    sums = {path: _checksum(leaf, _seed(path, leaf)) for path, leaf in leaves.items()}
    totals: dict[str, int] = {}
    for path, value in jax.device_get(sums).items():
        totals[path[0]] = (totals.get(path[0], 0) + int(value)) & _MASK
    return totals


def _seed(path: tuple[str, ...], leaf: jax.Array) -> np.uint32:
    return np.uint32(zlib.crc32(f"{'/'.join(path)} {leaf.dtype.name} {leaf.shape}".encode()))


@jax.jit
def _checksum(leaf: jax.Array, seed: jax.Array) -> jax.Array:
    """32 bits of one array; compiled once for all arrays of the same shape, dtype and sharding."""
    words = _words(leaf)
    # Made of the axes, not of a flat range: a reshape would gather what is spread over devices.
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):
        stride = math.prod(words.shape[axis + 1 :]) & _MASK
        place += lax.broadcasted_iota(jnp.uint32, words.shape, axis) * np.uint32(stride)
    mixed = _mix(words ^ _mix(place + seed))
    return _mix(jnp.sum(mixed, dtype=jnp.uint32) + seed)


def _words(leaf: jax.Array) -> jax.Array:
    """The bits of an array as uint32; of 64-bit numbers two for each, along a last axis."""
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    bits = min(8 * leaf.dtype.itemsize, 32)
    return lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{bits}")).astype(jnp.uint32)


def _mix(words: jax.Array) -> jax.Array:
    """Spreads every bit over all others, without losing any (the finish of MurmurHash3)."""
    words = (words ^ (words >> 16)) * np.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * np.uint32(0xC2B2AE35)
    return words ^ (words >> 16)
