"""Turns steps into metrics, images per second and a progress line, without stalling the device."""

import time
from typing import Any

import jax

from effnetv2_jax.outputs.progress import Progress, Status
from effnetv2_jax.outputs.writers import Writers
from effnetv2_jax.progressive import Plan, PlannedStage


class Report:
    """Collects what steps report, and reads it from the device one step late."""

    def __init__(
        self, plan: Plan, writers: Writers, progress: Progress, *, every_steps: int
    ) -> None:
        self._plan = plan
        self._writers = writers
        self._progress = progress
        self._every_steps = every_steps
        self._pending: tuple[int, PlannedStage, float, Any] | None = None
        self._since = time.perf_counter()
        self._images = 0

    def step(self, done: int, planned: PlannedStage, learning_rate: float, metrics: Any) -> None:
        """Takes a step's metrics, which may still be computing, and reports the step before."""
        self.flush()
        self._pending = (done, planned, learning_rate, metrics)
        if done == planned.first_step + 1:
            self.restart_clock()  # The call waited for the compilation of its stage.
        self._images += planned.batch_size

    def flush(self) -> None:
        """Reports the last step taken, if its turn has come, and waits for it."""
        if self._pending is None:
            return
        done, planned, learning_rate, metrics = self._pending
        self._pending = None
        if done % self._every_steps and done != planned.end_step:
            return
        metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
        elapsed = time.perf_counter() - self._since
        images_per_second = self._images / elapsed
        self._writers.write(
            done,
            "train",
            metrics
            | {
                "learning_rate": learning_rate,
                "images_per_second": images_per_second,
                "stage": planned.index,
                "image_size": planned.stage.image_size,
            },
        )
        self._progress.show(
            Status(
                step=done,
                total_steps=self._plan.total_steps,
                stage=planned.index,
                num_stages=len(self._plan.stages),
                image_size=planned.stage.image_size,
                images_per_second=images_per_second,
                loss=metrics["loss"],
                learning_rate=learning_rate,
                seconds_left=self._seconds_left(done, planned, images_per_second),
            )
        )
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves out of images per second what happened since the last report."""
        self._since = time.perf_counter()
        self._images = 0

    def _seconds_left(self, done: int, planned: PlannedStage, images_per_second: float) -> float:
        """An estimate from the pixels still to come, since later stages' images are larger."""
        pixels = sum(
            (coming.end_step - max(done, coming.first_step))
            * coming.batch_size
            * coming.stage.image_size**2
            for coming in self._plan.stages[planned.index :]
        )
        return pixels / (images_per_second * planned.stage.image_size**2)
