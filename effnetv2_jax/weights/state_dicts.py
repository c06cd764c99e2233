"""The weights within what training programs save: nested, averaged, and under prefixes."""

import logging
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from effnetv2_jax.weights.arrays import Arrays
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.inert_pickle import Inert

_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
_NESTS = (*_AVERAGED, "state_dict", "model_state_dict", "model_state", "model", "net", "network")
"""Where training programs put the weights in a checkpoint; averages first."""
_COUNTER = "n_averaged"
"""Of PyTorch's `AveragedModel`."""
_DEEPEST = 8
"""Of nests."""
_MOST_MODULES, _LONGEST_NAME = 10_000, 500
"""Of a module that was saved whole, whose parts a hostile file may nest without end."""

_log = logging.getLogger(__name__)


def state_dict(content: Any, title: str) -> Arrays:
    """The arrays of a state dict, alone or within a checkpoint; averaged ones where there are both.

    Args:
      content: nested mappings, with arrays of NumPy, JAX or PyTorch; as `read_torch_file` gives
        them, or a caller.
      title: names it in messages.

    Raises:
      WeightsError: it has no state dict.
    """
    for _ in range(_DEEPEST):
        if isinstance(content, Inert):
            content = _of_module(content)
        if not isinstance(content, Mapping):
            break
        inner = next((name for name in _NESTS if _holds(content.get(name))), None)
        if inner is None:
            break
        if inner in _AVERAGED:
            _log.warning("%s: its averaged weights are taken, %s", title, inner)
        content = content[inner]
    named = content.items() if isinstance(content, Mapping) else ()
    arrays = {str(name): found for name, value in named if (found := _array(value)) is not None}
    if not arrays:
        raise WeightsError(f"{title} has no state dict: it holds {_described(content)}")
    if arrays.pop(_COUNTER, None) is not None:
        _log.warning("%s: its weights are averaged ones (%s)", title, _COUNTER)
    return arrays


class Stripped(NamedTuple):
    """Arrays of one network, without what stood before each of their names."""

    arrays: Arrays
    others: tuple[str, ...]
    """Names of arrays outside of the network."""


def strip_prefix(arrays: Arrays, sign: str, title: str) -> Stripped | None:
    """Takes `module.`, `_orig_mod.`, `model.`, `encoder.` and the like off, whatever they are.

    Args:
      sign: a name that the network has, such as `conv_stem.weight`.

    Returns:
      None if no array has that name behind any prefix.

    Raises:
      WeightsError: there are several networks side by side.
    """
    found = [name.removesuffix(sign) for name in arrays if name.endswith(sign)]
    prefixes = sorted((p for p in found if not p or p.endswith(".")), key=len)
    if not prefixes:
        return None
    outermost: list[str] = []
    for prefix in dict.fromkeys(prefixes):
        if not prefix.startswith(tuple(outermost)):
            outermost.append(prefix)
    averaged = [prefix for prefix in outermost if re.search(r"(^|[._])ema[._]", prefix)]
    if len(outermost) > 1 and len(averaged) == 1:
        _log.warning("%s: its averaged weights are taken, %s", title, averaged[0])
        outermost = averaged
    if len(outermost) > 1:
        raise WeightsError(
            f"{title} has several networks, {', '.join(f'{prefix}*' for prefix in outermost)}; "
            "pass the state dict of one of them"
        )
    (prefix,) = outermost
    inside = {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
    return Stripped(inside, tuple(name for name in arrays if not name.startswith(prefix)))


def to_numpy(tensor: Any) -> np.ndarray:
    """A PyTorch tensor on any device, or what NumPy takes anyway, as an array."""
    if not hasattr(tensor, "detach"):
        return np.asarray(tensor)
    tensor = tensor.detach().cpu()
    # NumPy has no bfloat16; every bfloat16 is a float32.
    return (tensor.float() if tensor.dtype.itemsize == 2 else tensor).numpy()


def _array(value: Any) -> np.ndarray | None:
    return to_numpy(value) if hasattr(value, "dtype") and hasattr(value, "shape") else None


def _holds(value: Any) -> bool:
    return (isinstance(value, Mapping) and bool(value)) or (
        isinstance(value, Inert) and isinstance(value.state, Mapping)
    )


def _of_module(module: Inert) -> dict[str, Any]:
    """The state dict of a module that was saved whole, read from its attributes alone."""
    arrays: dict[str, Any] = {}
    waiting = [("", module)]
    for _ in range(_MOST_MODULES):
        if not waiting:
            break
        prefix, module = waiting.pop(0)
        state = module.state if isinstance(module.state, Mapping) else {}
        for kind in ("_parameters", "_buffers", "_modules"):
            owned = state.get(kind)
            for name, value in owned.items() if isinstance(owned, Mapping) else ():
                if not isinstance(value, Inert):
                    arrays[f"{prefix}{name}"] = value
                elif len(prefix) < _LONGEST_NAME:
                    waiting.append((f"{prefix}{name}.", value))
    return arrays


def _described(content: Any) -> str:
    if isinstance(content, Inert):
        return content.name
    if isinstance(content, Mapping):
        return f"a dict of {', '.join(map(repr, list(content)[:3])) or 'nothing'}"
    return type(content).__name__
