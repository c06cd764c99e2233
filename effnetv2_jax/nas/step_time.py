"""S of the reward: what a step of training costs, as a multiple of a reference network's step.

step_time(model) -> 1.3    # a third slower than the reference
"""

import json
import math
from collections.abc import Mapping
from typing import Protocol

from etils import epath

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.nas.architecture import network_hash


class StepTime(Protocol):
    """Where S comes from. It is asked in the process that trains the candidate."""

    @property
    def source(self) -> str:
        """What S is and where it is from, in a few words; recorded with every trial."""
        ...

    def __call__(self, model: ModelConfig) -> float:
        """S of a network: above 0, and 1 for the reference.

        Raises:
          ConfigError: it cannot be had; the message says what to do.
        """
        ...


class Constant:
    """Every network costs as much as the reference, so that S leaves the reward as it is."""

    source = "none"

    def __call__(self, model: ModelConfig) -> float:
        return 1.0


class Table:
    """S by the hash of the network, for tests, and to replay what another study measured."""

    def __init__(self, step_times: Mapping[str, float], title: str) -> None:
        """Takes the values by `network_hash`, and where they are from."""
        self._step_times = step_times
        self.source = f"table {title}"

    def __call__(self, model: ModelConfig) -> float:
        key = network_hash(model)
        if key not in self._step_times:
            raise ConfigError(f"{self.source} has no step time of the network {key}")
        return self._step_times[key]


def read_table(path: epath.PathLike) -> Table:
    """A table from a JSON file: an object of numbers above 0 by `network_hash`.

    Raises:
      ConfigError: there is no such file, or it holds something else.
    """
    try:
        content = json.loads(epath.Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"the table of step times {path} cannot be read: {error}") from error
    values = content.values() if isinstance(content, dict) else [None]
    if not all(isinstance(value, int | float) and 0 < value < math.inf for value in values):
        raise ConfigError(f"the table of step times {path} must hold numbers above 0 by hash")
    return Table(content, str(path))
