"""What stands after the colon in `--config=FILE:ARGUMENT`."""

from collections.abc import Callable, Sequence

import ml_collections

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.config.reading import to_config_dict
from effnetv2_jax.config.smoke import smoke


def choose(
    argument: str, build: Callable[..., Experiment], *groups: Sequence[str]
) -> ml_collections.ConfigDict:
    """The config that a config file's argument asks for.

    Args:
      argument: words with commas between, in any order: one of each group, and `smoke` to shorten
        the run. Of a group without a word the first is meant.
      build: makes the experiment; takes a word of each group.
      groups: the words there are; no word is in two groups.

    Raises:
      ValueError: a word is unknown, or two words exclude each other.
    """
    words = [word for word in argument.split(",") if word]
    chosen = []
    for group in groups:
        mentioned = [word for word in words if word in group]
        if len(mentioned) > 1:
            raise ValueError(f"argument {argument!r} has {' and '.join(mentioned)}; choose one")
        chosen.append(mentioned[0] if mentioned else group[0])
    known = [*(word for group in groups for word in group), "smoke"]
    for word in words:
        if word not in known:
            raise ValueError(f"unknown argument {word!r}; known: {', '.join(known)}")
    experiment = build(*chosen)
    return to_config_dict(smoke(experiment) if "smoke" in words else experiment)
