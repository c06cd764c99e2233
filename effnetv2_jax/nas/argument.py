"""What stands after the colon in `--config=FILE:ARGUMENT`, where the file has a search."""

import dataclasses
from collections.abc import Callable

from effnetv2_jax.config.smoke import smoke
from effnetv2_jax.nas.config import Search

_TRIALS = 2


def choose(argument: str, build: Callable[[], Search]) -> Search:
    """The search that a config file's argument asks for.

    Args:
      argument: `smoke` to shorten the trials as `config.smoke` does, and to run two; or empty.

    Raises:
      ValueError: it is another word.
    """
    search = build()
    if argument not in ("", "smoke"):
        raise ValueError(f"unknown argument {argument!r}; known: smoke")
    if not argument:
        return search
    return dataclasses.replace(
        search,
        experiment=smoke(search.experiment),
        trials=_TRIALS,
        finals=min(search.finals, 1),
        finals_epochs=1.0,
        finals_seeds=1,
    )
