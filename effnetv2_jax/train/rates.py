"""Which parameters a run trains, and at which share of its learning rate.

Rates are pairs of a regular expression and a factor. The expressions are searched for in paths such
as `blocks_3/expand/conv/kernel`; the first that is found wins, and what none is found in has 1.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import traverse_util

from effnetv2_jax.config.errors import ConfigError

Params = Mapping[str, Any]
"""Nested dicts."""
Rates = Sequence[tuple[str, float]]


def check_rates(params: Params, rates: Rates) -> None:
    """Raises a ConfigError if an expression wins no parameter, or if nothing is left to train.

    Args:
      params: all of a model's, arrays or shapes.
    """
    flat = traverse_util.flatten_dict(dict(params), sep="/")
    winners = {path: _winner(path, rates) for path in flat}
    for index, (pattern, _) in enumerate(rates):
        if index not in winners.values():
            others = " that those before it left" if index else ""
            paths = sorted(flat)
            raise ConfigError(
                f"config.rates[{index}] has {pattern!r}, which is found in no parameter's path"
                f"{others}; they look like {', '.join([*paths[:2], paths[-1]])}"
            )
    if all(winner is not None and rates[winner][1] == 0 for winner in winners.values()):
        raise ConfigError("config.rates has factor 0 for all parameters; leave some to train")


def counts(params: Params, rates: Rates) -> list[int]:
    """How many numbers each of the rates decides about."""
    flat = traverse_util.flatten_dict(dict(params), sep="/")
    return [
        sum(leaf.size for path, leaf in flat.items() if _winner(path, rates) == index)
        for index in range(len(rates))
    ]


def factors(params: Params, rates: Rates) -> Any:
    """A tree like `params`, of each parameter's factor."""

    def factor(path: tuple[jax.tree_util.DictKey, ...], _: Any) -> float:
        winner = _winner("/".join(key.key for key in path), rates)
        return 1.0 if winner is None else rates[winner][1]

    return jax.tree_util.tree_map_with_path(factor, params)


def trained_params(params: Params, rates: Rates) -> dict[str, Any]:
    """The parameters whose factor is not 0; modules without any are left out."""
    factor = traverse_util.flatten_dict(factors(params, rates))
    flat = traverse_util.flatten_dict(dict(params))
    return traverse_util.unflatten_dict({path: flat[path] for path in flat if factor[path]})


def with_trained(params: Params, trained: Params) -> dict[str, Any]:
    """The parameters with those of `trained` in the place of their namesakes."""
    flat = traverse_util.flatten_dict(dict(params))
    return traverse_util.unflatten_dict(flat | traverse_util.flatten_dict(dict(trained)))


def _winner(path: str, rates: Rates) -> int | None:
    """Which of the expressions decides about a path; None if none of them is found in it."""
    found = (index for index, (pattern, _) in enumerate(rates) if re.search(pattern, path))
    return next(found, None)
