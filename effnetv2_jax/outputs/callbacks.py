"""What a program may learn of a run while it trains."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

_log = logging.getLogger(__name__)

Numbers = Mapping[str, int | float]


class Callback:
    """Is told how a run goes, in its first process; the methods here do nothing.

    What it is given are plain numbers, copied for it, and what it returns is not looked at: it
    cannot change what the run computes. One that raises an exception is told no more, and the run
    goes on.
    """

    def on_start(self, step: int, total_steps: int) -> None:
        """The run goes on from here.

        Args:
          step: steps done, 0 where it begins.
        """

    def on_step_log(self, step: int, metrics: Numbers) -> None:
        """Every `log.every_steps`, after a step.

        Args:
          step: steps done.
          metrics: of `metrics.jsonl`: `loss`, `learning_rate`, `image_size`, `images_per_second`
            and others.
        """

    def on_evaluation(self, step: int, result: Numbers) -> None:
        """After an evaluation.

        Args:
          step: steps done.
          result: as `effnetv2_jax.train.evaluate.evaluate` returns it.
        """


class Told:
    """Calls the callbacks that have not failed yet, each with numbers of its own."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = list(callbacks)

    def on_start(self, step: int, total_steps: int) -> None:
        self._tell("on_start", step, total_steps)

    def on_step_log(self, step: int, metrics: Numbers) -> None:
        self._tell("on_step_log", step, metrics)

    def on_evaluation(self, step: int, result: Numbers) -> None:
        self._tell("on_evaluation", step, result)

    def _tell(self, method: str, step: int, what: Any) -> None:
        for callback in tuple(self._callbacks):
            try:
                getattr(callback, method)(step, dict(what) if isinstance(what, Mapping) else what)
            except Exception:
                self._callbacks.remove(callback)
                name = type(callback).__name__
                _log.exception("%s.%s failed and is told no more; the run goes on", name, method)
