"""Turns another library's named arrays into a model's variables and back, every name checked."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effnetv2_jax.models.efficientnet.layers_by_name import Kind, parts
from effnetv2_jax.models.efficientnet.model import EfficientNet
from effnetv2_jax.models.libraries import Source
from effnetv2_jax.models.shapes import abstract_variables
from effnetv2_jax.weights.errors import WeightsError

SHOWN = 5
"""Names that a message lists of each kind of fault."""


class Entry(NamedTuple):
    """An array of ours that a source has under a name of its own."""

    path: tuple[str, ...]
    """Collection, modules and name: `("params", "stem", "conv", "kernel")`."""
    kind: Kind


def entries(model: EfficientNet, source: Source) -> dict[str, Entry]:
    """Every array of a model under the source's name for it."""
    return {
        f"{source.module(part)}{source.separator}{theirs}": Entry(
            ("batch_stats" if ours in ("mean", "var") else "params", *part.path, ours), part.kind
        )
        for part in parts(model)
        for ours, theirs in source.variables[part.kind].items()
    }


def from_source(
    model: EfficientNet,
    arrays: Mapping[str, np.ndarray],
    source: Source,
    *,
    title: str = "",
) -> dict[str, Any]:
    """A model's variables from another library's arrays.

    Args:
      model: what the arrays are for.
      arrays: by the source's names, in its layouts.
      source: whose names and layouts.
      title: names the arrays in messages; empty for the source's.

    Returns:
      `{"params": ..., "batch_stats": ...}` of NumPy arrays in the model's `param_dtype`.

    Raises:
      WeightsError: names are missing or left over, or an array has another shape, is not of floats
        or has values that are not finite; the message names them.
    """
    names = entries(model, source)
    given = {name for name in arrays if not name.endswith(source.ignored)}
    faults = _listed("missing", sorted(names.keys() - given))
    faults += _listed("unexpected", sorted(given - names.keys()))

    wanted = variable_shapes(model)
    variables: dict[str, Any] = {}
    misshapen, unfit = [], []
    for name in names.keys() & given:
        entry = names[name]
        array = np.asarray(arrays[name])
        if not jnp.issubdtype(array.dtype, jnp.floating):
            unfit.append(f"{name} ({array.dtype})")
            continue
        ours = source.to_ours(entry.kind, array)
        shape = wanted[entry.path]
        if ours.shape != shape:
            expected = source.to_theirs(entry.kind, np.empty(shape)).shape
            misshapen.append(f"{name} ({array.shape}, not {expected})")
            continue
        ours = ours.astype(model.param_dtype)
        if not np.isfinite(ours).all():
            unfit.append(f"{name} (NaN or infinite)")
        node = variables
        for key in entry.path[:-1]:
            node = node.setdefault(key, {})
        node[entry.path[-1]] = np.ascontiguousarray(ours)
    faults += _listed("wrongly shaped", sorted(misshapen)) + _listed("unfit", sorted(unfit))
    if faults:
        raise WeightsError(
            f"weights of {title or source.title} do not fit the model: {'; '.join(faults)}"
        )
    return variables


def to_source(
    model: EfficientNet, variables: Mapping[str, Any], source: Source
) -> dict[str, np.ndarray]:
    """A model's variables under another library's names and in its layouts.

    Raises:
      WeightsError: `variables` lack an array of the model; the message names it.
    """
    arrays = {}
    for name, entry in entries(model, source).items():
        node: Any = variables
        for key in entry.path:
            if key not in node:
                raise WeightsError(f"the variables lack {'/'.join(entry.path)}")
            node = node[key]
        arrays[name] = np.ascontiguousarray(source.to_theirs(entry.kind, np.asarray(node)))
    return arrays


def variable_shapes(model: EfficientNet) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The shape of every array of a model, by collection, modules and name."""
    leaves, _ = jax.tree.flatten_with_path(abstract_variables(model))
    return {tuple(key.key for key in path): leaf.shape for path, leaf in leaves}


def _listed(fault: str, names: Iterable[str]) -> list[str]:
    names = list(names)
    if not names:
        return []
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{len(names)} {fault}: {', '.join(names[:SHOWN])}{more}"]
