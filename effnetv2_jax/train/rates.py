"""Which parameters a run trains, and which stay as they are."""

import re
from collections.abc import Mapping
from typing import Any

from flax import traverse_util

from effnetv2_jax.config.errors import ConfigError

Params = Mapping[str, Any]


def trainable_part(params: Params, pattern: str) -> dict[str, Any]:
    """The parameters whose path the regular expression is found in.

    Args:
      params: nested dicts.
      pattern: searched for in paths such as `blocks_3/expand/conv/kernel`.

    Raises:
      ConfigError: it is found in none.
    """
    flat = traverse_util.flatten_dict(dict(params), sep="/")
    chosen = {path: leaf for path, leaf in flat.items() if re.search(pattern, path)}
    if not chosen:
        raise ConfigError(
            f"config.trainable is {pattern!r}, which is found in no parameter's path; they look "
            f"like {', '.join(sorted(flat)[:2] + sorted(flat)[-1:])}"
        )
    return traverse_util.unflatten_dict(chosen, sep="/")


def with_part(params: Params, part: Params) -> dict[str, Any]:
    """The parameters with those of `part` in the place of their namesakes."""
    flat = traverse_util.flatten_dict(dict(params), sep="/")
    return traverse_util.unflatten_dict(
        flat | traverse_util.flatten_dict(dict(part), sep="/"), sep="/"
    )
