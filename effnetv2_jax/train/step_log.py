"""Logs steps as metrics, images per second and a progress line, without stalling the device."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from effnetv2_jax.outputs.progress import Progress, Status
from effnetv2_jax.outputs.writers import Writers
from effnetv2_jax.progressive import Plan, PlannedStage
from effnetv2_jax.train.divergence import PARAMS_NORM


class _Pending(NamedTuple):
    """A step that was given to the device, and is not logged yet."""

    done: int
    planned: PlannedStage
    values: Mapping[str, float]
    metrics: Any
    finished: float | None
    """When, if it had finished as soon as it was given: a CPU may compute within the call."""


class StepLog:
    """Logs what steps return, and reads it from the device one step late.

    A row of metrics is due after every so many steps, a line at a stage's first step and then by
    the time that has passed.

    Args:
      plan: the run's.
      every_steps: between two rows.
      besides: how many seconds a run takes after `done` steps besides those of its steps; for
        estimates.
    """

    def __init__(
        self,
        plan: Plan,
        writers: Writers,
        progress: Progress,
        *,
        every_steps: int,
        besides: Callable[[int], float] = lambda done: 0.0,
    ) -> None:
        self._plan = plan
        self._writers = writers
        self._progress = progress
        self._every_steps = every_steps
        self._besides = besides
        self._pending: _Pending | None = None
        self._images_per_second: float | None = None
        self._stage: int | None = None
        self._since = time.perf_counter()
        self._images = 0
        self._stage_seconds = 0.0
        self._stage_images = 0

    def step(
        self, done: int, planned: PlannedStage, values: Mapping[str, float], metrics: Any
    ) -> None:
        """Takes a step's metrics, which may still be computing, and logs the step before.

        Args:
          values: of `step_values`; every row of the log has them.
        """
        ready = all(value.is_ready() for value in metrics.values())
        finished = time.perf_counter() if ready else None
        self.flush()
        self._pending = _Pending(done, planned, values, metrics, finished)

    def flush(self) -> None:
        """Logs the last step taken, if it is due, and waits for it."""
        if self._pending is None:
            return
        done, planned, values, metrics, finished = self._pending
        self._pending = None
        first = planned.index != self._stage
        self._stage = planned.index
        due = done % self._every_steps == 0 or done == planned.end_step
        shown = first or self._progress.due
        self._images += planned.batch_size
        if not (due or shown):
            return
        metrics = {
            name: float(value)
            for name, value in jax.device_get(metrics).items()
            if name != PARAMS_NORM
        }
        finished = finished or time.perf_counter()
        # A stage's first call waits for the compilation: its time says nothing of the next ones.
        if first:
            self._images_per_second = None
            self._stage_seconds, self._stage_images = 0.0, 0
        else:
            self._images_per_second = self._images / (finished - self._since)
        if first or due:
            if not first:
                self._stage_seconds += finished - self._since
                self._stage_images += self._images
            self._since, self._images = finished, 0
        speed = self._images_per_second
        if due:
            self._writers.write(
                done,
                "train",
                metrics
                | dict(values)
                | {"stage": planned.index, "image_size": planned.stage.image_size}
                | ({} if speed is None else {"images_per_second": speed}),
            )
        if shown:
            self._progress.show(
                Status(
                    step=done,
                    total_steps=self._plan.total_steps,
                    stage=planned.index,
                    num_stages=len(self._plan.stages),
                    image_size=planned.stage.image_size,
                    images_per_second=speed,
                    loss=metrics["loss"],
                    learning_rate=values["learning_rate"],
                    seconds_left=self.seconds_left(done),
                )
            )
        if done == planned.end_step:
            self._end_stage(planned)

    def _end_stage(self, planned: PlannedStage) -> None:
        steps = planned.end_step - planned.first_step
        rate = ""
        if self._stage_seconds:
            rate = f", {self._stage_images / self._stage_seconds:,.0f} images/s"
        self._progress.message(
            f"stage {planned.index + 1}/{len(self._plan.stages)} is done: {steps:,} steps at "
            f"{planned.stage.image_size} px{rate}"
        )

    def restart(self) -> None:
        """Forgets the step that is not logged yet, for a run that is rolled back."""
        self._pending = None
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves out of images per second what happened since the last row."""
        self._since = time.perf_counter()
        self._images = 0

    def seconds_left(self, done: int) -> float | None:
        """An estimate for what comes after `done` steps; None before it can be made."""
        speed = self._images_per_second
        if speed is None:
            return None
        planned = self._plan.stage_at(max(done - 1, 0))
        return self._steps_left(done, planned, speed) + self._besides(done)

    def _steps_left(self, done: int, planned: PlannedStage, images_per_second: float) -> float:
        """An estimate from the pixels still to come, since later stages' images are larger."""
        pixels = sum(
            (coming.end_step - max(done, coming.first_step))
            * coming.batch_size
            * coming.stage.image_size**2
            for coming in self._plan.stages[planned.index :]
        )
        return pixels / (images_per_second * planned.stage.image_size**2)
