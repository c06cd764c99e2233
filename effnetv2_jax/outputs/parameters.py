"""What a tree of parameters is: its fingerprint, and a table to read."""

import hashlib
import sys
from typing import Any

import jax
import numpy as np
from clu import parameter_overview


def params_sha256(tree: Any) -> str:
    """SHA-256 over every leaf's name, dtype, shape and little-endian bytes, sorted by name.

    Equal for equal values, whatever their devices and shardings and the order of dicts; any
    changed bit changes it. On several processes each leaf must be replicated.
    """
    leaves, _ = jax.tree.flatten_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    digest = hashlib.sha256()
    for name, leaf in sorted(named.items(), key=lambda item: item[0]):
        array = np.asarray(leaf)
        if sys.byteorder == "big":
            array = array.byteswap()
        digest.update(f"{name}\0{array.dtype.name}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def parameter_table(params: Any) -> str:
    """A table of names, shapes, dtypes and sizes, and the number of parameters."""
    return parameter_overview.get_parameter_overview(params, include_stats=False)
