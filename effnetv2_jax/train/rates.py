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
Rates = Sequence[tuple[str, float]]


def _winner(path: str, rates: Rates) -> int | None:
    """Which of the expressions decides about a path; None if none of them is found in it."""
    found = (index for index, (pattern, _) in enumerate(rates) if re.search(pattern, path))
    return next(found, None)


def factors(params: Params, rates: Rates) -> dict[str, Any]:
    """A tree of the structure of `params`, of each parameter's factor."""

    def factor(path: tuple[jax.tree_util.DictKey, ...], _: Any) -> float:
        winner = _winner("/".join(key.key for key in path), rates)
        return 1.0 if winner is None else rates[winner][1]

    tree: dict[str, Any] = jax.tree_util.tree_map_with_path(factor, params)
    return tree


def check_rates(params: Params, rates: Rates) -> None:
    """Raises a ConfigError if an expression decides about no parameter, or if none is trained.

    Args:
      params: all of them, as nested dicts.
    """
    paths = sorted(traverse_util.flatten_dict(dict(params), sep="/"))
    winners = {_winner(path, rates) for path in paths}
    looks = f"they look like {', '.join([*paths[:2], *paths[-1:]])}"
    for index, (pattern, _) in enumerate(rates):
        if index not in winners:
            before = " that no expression before it is found in" if index else ""
            raise ConfigError(
                f"config.rates[{index}] is {pattern!r}, which is found in no parameter's path"
                f"{before}; {looks}"
            )
    if all(winner is not None and rates[winner][1] == 0 for winner in winners):
        raise ConfigError("config.rates has factor 0 for every parameter; leave one to train")


def trained_params(params: Params, rates: Rates) -> dict[str, Any]:
    """The parameters whose factor is not 0; modules without any are left out."""
    factor = traverse_util.flatten_dict(factors(params, rates))
    flat = traverse_util.flatten_dict(dict(params))
    return traverse_util.unflatten_dict({path: flat[path] for path in flat if factor[path]})


def with_trained(params: Params, trained: Params) -> dict[str, Any]:
    """The parameters with those of `trained` in the place of their namesakes."""
    flat = traverse_util.flatten_dict(dict(params))
    return traverse_util.unflatten_dict(flat | traverse_util.flatten_dict(dict(trained)))
