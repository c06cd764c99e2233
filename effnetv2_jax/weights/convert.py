"""Turns named arrays into a model's variables and back, every name checked.

The names are another library's, or our own: `<collection>/<modules>/<name>`, such as
`params/stem/conv/kernel`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effnetv2_jax.models.libraries import Entry, Library, interchange_of
from effnetv2_jax.models.protocol import Model
from effnetv2_jax.models.registry import family_of_model
from effnetv2_jax.models.shapes import abstract_variables
from effnetv2_jax.outputs.state_checksum import named_leaves
from effnetv2_jax.system.text import some
from effnetv2_jax.weights.arrays import Arrays
from effnetv2_jax.weights.errors import WeightsError

SHOWN = 5
"""Names that a message lists of each kind of fault."""

VariablePath = tuple[str, ...]
"""Collection, modules and name."""
Variables = dict[str, Any]


def entries(model: Model, library: Library) -> dict[str, Entry]:
    """Every array of a model under a library's name for it."""
    interchange = interchange_of(family_of_model(model))
    assert interchange is not None, "the library is one of the family's"
    return library.entries(interchange.layers(model))


def from_library(model: Model, arrays: Arrays, library: Library, *, title: str = "") -> Variables:
    """A model's variables from another library's arrays.

    Args:
      model: what the arrays are for.
      arrays: by the library's names, in its layouts.
      library: whose names and layouts.
      title: names the arrays in messages; empty for the library's.

    Returns:
      `{"params": ..., "batch_stats": ...}` of NumPy arrays in the dtypes of the model's variables.

    Raises:
      WeightsError: names are missing or left over, or an array has another shape, is not of floats
        or has values that are not finite; the message names them.
    """
    names = entries(model, library)
    return _variables(
        abstract_variables(model),
        {name: array for name, array in arrays.items() if not name.endswith(library.ignored)},
        {name: entry.path for name, entry in names.items()},
        to_ours=lambda name, array: library.to_ours(names[name].kind, array),
        to_theirs=lambda name, array: library.to_theirs(names[name].kind, array),
        title=f"weights of {title or library.title}",
    )


def to_library(
    model: Model, variables: Mapping[str, Any], library: Library
) -> dict[str, np.ndarray]:
    """A model's variables under another library's names and in its layouts.

    Raises:
      WeightsError: `variables` are not the model's, or have values that are not finite; the message
        names the arrays.
    """
    found = named_leaves(checked(model, variables))
    return {
        name: np.asarray(library.to_theirs(entry.kind, found[entry.path]), order="C")
        for name, entry in entries(model, library).items()
    }


def from_own(model: Model, arrays: Arrays, *, title: str) -> Variables:
    """A model's variables from arrays under our own names; see `from_library`."""
    abstract = abstract_variables(model)
    return _variables(
        abstract,
        arrays,
        _own_names(abstract),
        to_ours=lambda name, array: array,
        to_theirs=lambda name, array: array,
        title=f"weights of {title}",
    )


def to_own(model: Model, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A model's variables under our own names.

    Raises:
      WeightsError: as for `to_library`.
    """
    leaves = named_leaves(checked(model, variables))
    return {"/".join(path): np.asarray(leaf, order="C") for path, leaf in leaves.items()}


def checked(model: Model, variables: Mapping[str, Any]) -> Variables:
    """A model's variables as they are, as NumPy arrays.

    Raises:
      WeightsError: arrays are missing or left over, or have another shape or kind of dtype, or
        values that are not finite; the message names them.
    """
    leaves = {path: np.asarray(leaf) for path, leaf in named_leaves(variables).items()}
    abstract = abstract_variables(model)
    _variables(
        abstract,
        {"/".join(path): leaf for path, leaf in leaves.items()},
        _own_names(abstract),
        to_ours=lambda name, array: array,
        to_theirs=lambda name, array: array,
        title="the variables",
    )
    tree: Variables = jax.tree.unflatten(
        jax.tree.structure(abstract), [leaves[path] for path in named_leaves(abstract)]
    )
    return tree


def _own_names(abstract: Any) -> dict[str, VariablePath]:
    return {"/".join(path): path for path in named_leaves(abstract)}


def _variables(
    abstract: Any,
    arrays: Arrays,
    paths: Mapping[str, VariablePath],
    *,
    to_ours: Callable[[str, np.ndarray], np.ndarray],
    to_theirs: Callable[[str, np.ndarray], np.ndarray],
    title: str,
) -> Variables:
    faults = _listed("missing", sorted(paths.keys() - arrays.keys()))
    faults += _listed("unexpected", sorted(arrays.keys() - paths.keys()))
    wanted = named_leaves(abstract)
    leaves: dict[VariablePath, np.ndarray] = {}
    misshapen, unfit = [], []
    for name in paths.keys() & arrays.keys():
        like, array = wanted[paths[name]], np.asarray(arrays[name])
        floats = jnp.issubdtype(like.dtype, jnp.floating)
        if not (jnp.issubdtype(array.dtype, jnp.floating) if floats else array.dtype == like.dtype):
            unfit.append(f"{name} ({array.dtype})")
            continue
        ours = to_ours(name, array)
        if ours.shape != like.shape:
            expected = to_theirs(name, np.empty(like.shape)).shape
            misshapen.append(f"{name} ({array.shape}, not {expected})")
            continue
        ours = ours.astype(like.dtype, copy=False)
        if floats and not np.isfinite(ours).all():
            unfit.append(f"{name} (NaN or infinite)")
        leaves[paths[name]] = np.asarray(ours, order="C")
    faults += _listed("wrongly shaped", sorted(misshapen)) + _listed("unfit", sorted(unfit))
    if faults:
        raise WeightsError(f"{title} do not fit the model: {'; '.join(faults)}")
    variables: Variables = jax.tree.unflatten(
        jax.tree.structure(abstract), [leaves[path] for path in wanted]
    )
    return variables


def _listed(fault: str, names: Iterable[str]) -> list[str]:
    names = list(names)
    if not names:
        return []
    return [f"{len(names)} {fault}: {some(names, SHOWN)}"]
