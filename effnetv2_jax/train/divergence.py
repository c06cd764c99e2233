"""Notices when training diverges: a loss, gradient or parameter that is not finite, or a loss that
spikes."""

import collections
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax

LAG = 2
"""Steps after which a step's metrics are read, so that the devices always have one to do. Fixed,
and not when they are ready, so that all processes of a run notice at the same step."""
PARAMS_NORM = "params_norm"
"""The metric of a step that is looked at here and logged nowhere."""
_RECENT = 0.95
"""Share of the old value in the recent mean of the loss."""
_FIRST = 20
"""Losses that make a mean."""


class DivergenceError(RuntimeError):
    """Training diverged, and the config does not say to go on; the message says what to do."""

    exit_status = 3


class Divergence(NamedTuple):
    """A step whose loss or gradient is not finite, and that left the state as it was; or one whose
    update was too large, so that the parameters are not finite.
    """

    done: int
    loss: float
    gradient_norm: float
    params_norm: float = 0.0

    @property
    def spoils(self) -> bool:
        """Whether the state after the step is of no use."""
        return not math.isfinite(self.params_norm)

    def __str__(self) -> str:
        text = f"step {self.done} diverged: loss {self.loss}, gradient norm {self.gradient_norm}"
        return f"{text}, norm of its parameters {self.params_norm}" if self.spoils else text


class NotFinite(NamedTuple):
    """A state that holds NaN or infinity where no step's metrics show it."""

    done: int
    name: str
    """Of an array in it."""

    @property
    def spoils(self) -> bool:
        """Whether the state is of no use."""
        return True

    def __str__(self) -> str:
        return f"after step {self.done} {self.name} is not finite"


class Spike(NamedTuple):
    """A step whose loss is far above its recent mean."""

    done: int
    loss: float
    mean: float
    """Of the losses shortly before."""

    def __str__(self) -> str:
        return f"step {self.done} has loss {self.loss:.4g}, after a mean of {self.mean:.4g}"


class _Pending(NamedTuple):
    done: int
    loss: jax.Array
    gradient_norm: jax.Array
    params_norm: jax.Array


class LossWatch:
    """Reads every step's loss and the norms of its gradient and parameters, `LAG` steps late.

    Args:
      spike: a loss this many times the recent mean is a `Spike`.
    """

    def __init__(self, spike: float) -> None:
        self._factor = spike
        self._pending: collections.deque[_Pending] = collections.deque()
        self._losses = 0
        self._mean = 0.0

    def step(self, done: int, metrics: Mapping[str, jax.Array]) -> Iterator[Divergence | Spike]:
        """Takes a step's metrics, which may still be computing, and looks at those of an older one.

        What is found is yielded, so that the caller has to iterate.
        """
        pending = _Pending(done, metrics["loss"], metrics["gradient_norm"], metrics[PARAMS_NORM])
        for value in pending[1:]:
            value.copy_to_host_async()
        self._pending.append(pending)
        if len(self._pending) > LAG:
            yield from self._look()

    def flush(self) -> Iterator[Divergence | Spike]:
        """Likewise looks at all that is left, and waits for it."""
        while self._pending:
            yield from self._look()

    def forget(self) -> None:
        """Leaves out what has not been looked at, for a run that is rolled back."""
        self._pending.clear()

    def _look(self) -> Iterator[Divergence | Spike]:
        done, *values = self._pending.popleft()
        loss, gradient_norm, params_norm = map(float, values)
        if not all(map(math.isfinite, (loss, gradient_norm, params_norm))):
            yield Divergence(done, loss, gradient_norm, params_norm)
            return
        if self._losses >= _FIRST and loss > self._factor * self._mean:
            yield Spike(done, loss, self._mean)
        self._losses += 1
        # A mean of all losses at first, and later of the recent ones.
        self._mean += max(1 / self._losses, 1 - _RECENT) * (loss - self._mean)
