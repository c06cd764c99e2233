"""When to stop before the last step: a pure function of the evaluations so far."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.outputs.checkpoints import scored


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patience:
    """How many evaluations in a row were no better than the best before them."""

    by: str
    """As `CheckpointConfig.best_by`."""
    limit: int | None
    """None is endless."""
    min_gain: float
    best: float | None = None
    waited: int = 0

    @classmethod
    def of(cls, experiment: Experiment) -> Self:
        """That of a run before its first evaluation."""
        config = experiment.early_stopping
        return cls(by=experiment.best_by, limit=config.patience, min_gain=config.min_gain)

    @property
    def is_exhausted(self) -> bool:
        return self.limit is not None and self.waited >= self.limit

    def after(self, result: Mapping[str, float]) -> Self:
        """What it is after another evaluation, which may have no such value."""
        name, value = scored(self.by, result)
        if self.limit is None or math.isnan(value):
            return self
        gain = math.inf if self.best is None else value - self.best
        if name.endswith("loss") and self.best is not None:
            gain = -gain
        if gain > self.min_gain:
            return dataclasses.replace(self, best=value, waited=0)
        return dataclasses.replace(self, waited=self.waited + 1)

    def to_json(self) -> list[Any]:
        """What a checkpoint keeps of it."""
        return [self.best, self.waited]

    def restored(self, saved: list[Any] | None) -> Self:
        """With what a checkpoint kept; None is of one without."""
        return self if saved is None else dataclasses.replace(self, best=saved[0], waited=saved[1])
