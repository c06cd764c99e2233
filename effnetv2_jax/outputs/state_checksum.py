"""What is looked at before a state is saved and after it is read: checksums, and finite values."""

from typing import Any

import google_crc32c
import jax
import jax.numpy as jnp
import numpy as np


def named_leaves(tree: Any) -> dict[tuple[str, ...], Any]:
    """The leaves in flattening order, each under the names that lead to it."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path): leaf
        for path, leaf in leaves
    }


def first_not_finite(state: Any) -> str | None:
    """The name of an array of a state that holds NaN or infinity; None where none does.

    Args:
      state: any tree of arrays, which each process holds completely.
    """
    for path, leaf in named_leaves(state).items():
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(np.asarray(leaf)).all():
            return "/".join(path)
    return None


def state_checksum(state: Any) -> dict[str, int]:
    """CRC-32C of a tree of arrays, one for each of its fields.

    They depend on names, shapes, dtypes and every bit of the values, and on nothing else, such as
    how many devices hold them. Blocks until the arrays are computed and copied to the host; there
    a gigabyte takes about a tenth of a second. On the devices it would need a program for every
    shape, which take longer to compile than a short run trains.

    Args:
      state: a dict or a dataclass of any trees of arrays, which each process holds completely.

    Returns:
      32 bits for each field that holds any array, by its name.
    """
    leaves = named_leaves(state)
    for leaf in leaves.values():
        leaf.copy_to_host_async()
    checksums: dict[str, int] = {}
    for path, leaf in sorted(leaves.items()):
        name = f"{'/'.join(path)} {leaf.dtype.name} {leaf.shape}".encode()
        checksum = google_crc32c.extend(checksums.get(path[0], 0), name)
        values = np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)
        checksums[path[0]] = google_crc32c.extend(checksum, values)
    return checksums
