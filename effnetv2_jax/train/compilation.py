"""Compiles a run's programs ahead of time, while it trains."""

import concurrent.futures
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.models.protocol import Model
from effnetv2_jax.parallel.mesh import by_example
from effnetv2_jax.progressive import Plan, PlannedStage
from effnetv2_jax.train import compile_times
from effnetv2_jax.train.evaluate import EvalStep, make_eval_step, weights_of
from effnetv2_jax.train.state import TrainState, key_of
from effnetv2_jax.train.step import TrainStep, as_float32, make_train_step, step_values

Result = TypeVar("Result")

WORKERS = 2 if (os.cpu_count() or 1) > 2 else 1
"""Programs compiled at a time, but on a GPU. Much of a compilation runs on one core; where there
are but two, a second one delays the first stage's, which is waited for."""


class Programs:
    """The compiled training step of each stage that is still to come, and the evaluation.

    They compile in the background, in about the order in which a run comes to need them. On a GPU
    XLA times candidates on the device while it compiles, and two that do so in one process hold
    each other up: the quickstart's first stage compiles in 40 seconds on an H200, and had not after
    four minutes with the second one's beside it. So there they compile one after the other, in one
    order on all processes, which wait for each other's timings.

    Args:
      plan: whose stages they are.
      state: what the steps will be called with.
      start: steps done; stages that end before are not compiled.
      class_weights: of the loss, see `make_train_step`.
    """

    def __init__(
        self,
        experiment: Experiment,
        model: Model,
        optimizer: optax.GradientTransformationExtraArgs,
        plan: Plan,
        state: TrainState,
        mesh: Mesh,
        *,
        start: int,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        shapes: TrainState = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
        )
        train_step = make_train_step(experiment, model, optimizer, mesh, class_weights)
        labels, channels = experiment.data.max_labels, experiment.model.input_channels

        def compile_stage(planned: PlannedStage) -> TrainStep:
            return compile_step(
                train_step, planned, shapes, mesh, max_labels=labels, channels=channels
            )

        def compile_evaluation() -> EvalStep:
            metric = experiment.evaluation.metric
            eval_step: Any = make_eval_step(model, mesh, loss=experiment.loss, metric=metric)
            count, size = experiment.evaluation.batch_size, model.preprocessing.image_size
            mask = jax.ShapeDtypeStruct((count,), jnp.bool, sharding=by_example(mesh))
            batch = _batch(count, size, labels, mesh, channels) | {"mask": mask}
            compiled: EvalStep = eval_step.lower(weights_of(shapes), batch).compile()
            return compiled

        def timed(name: str, task: Callable[[], Result]) -> Result:
            began = time.perf_counter()
            made = task()
            compile_times.record(name, time.perf_counter() - began)
            return made

        device, arrays = mesh.devices.flat[0], len(jax.tree.leaves(shapes.params))
        self._expected: dict[tuple[int, int], float] = {}

        def begin(planned: PlannedStage) -> concurrent.futures.Future[TrainStep]:
            size, batch = _shape(planned)
            name = f"{device.device_kind} {experiment.model.name} {size} px x {batch}"
            self._expected[size, batch] = compile_times.expected(
                name, platform=device.platform, arrays=arrays
            )
            return self._executor.submit(timed, name, lambda: compile_stage(planned))

        self._begin_stage = begin
        on_gpu = device.platform == "gpu"
        self._executor = concurrent.futures.ThreadPoolExecutor(1 if on_gpu else WORKERS)
        self._steps: dict[tuple[int, int], concurrent.futures.Future[TrainStep]] = {}
        to_come = [planned for planned in plan.stages if planned.end_step > start]
        for planned in to_come[:1]:
            self._begin(planned)
        self._evaluation = self._executor.submit(compile_evaluation)
        for planned in to_come[1:]:
            self._begin(planned)

    def train_step(self, planned: PlannedStage) -> TrainStep:
        """The step of a stage; waits until it is compiled."""
        self._begin(planned)  # A run may have been rolled back to a stage that had ended.
        return self._steps[_shape(planned)].result()

    def is_ready(self, planned: PlannedStage) -> bool:
        """Whether the step of a stage is compiled, so that nobody waits for it."""
        future = self._steps.get(_shape(planned))
        return future is not None and future.done()

    def expected_seconds(self, planned: PlannedStage) -> float:
        """About how long the step of a stage takes to compile; none if it is compiled."""
        return 0.0 if self.is_ready(planned) else self._expected.get(_shape(planned), 0.0)

    def eval_step(self) -> EvalStep:
        """An evaluation's, as `make_eval_step` describes it; waits until it is compiled."""
        return self._evaluation.result()

    def submit(self, task: Callable[[], Result]) -> "concurrent.futures.Future[Result]":
        """Does something else in the background, behind the programs."""
        return self._executor.submit(task)

    def close(self) -> None:
        """Gives up what has not begun to compile."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _begin(self, planned: PlannedStage) -> None:
        if _shape(planned) not in self._steps:
            self._steps[_shape(planned)] = self._begin_stage(planned)


def _shape(planned: PlannedStage) -> tuple[int, int]:
    return planned.stage.image_size, planned.batch_size


def _batch(
    batch_size: int, image_size: int, max_labels: int, mesh: Mesh, channels: int
) -> dict[str, jax.ShapeDtypeStruct]:
    shapes = {
        "image": ((batch_size, image_size, image_size, channels), jnp.uint8),
        "labels": ((batch_size, max_labels), jnp.int32),
    }
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=by_example(mesh))
        for name, (shape, dtype) in shapes.items()
    }


def compile_step(
    train_step: Any,
    planned: PlannedStage,
    state: TrainState,
    mesh: Mesh,
    *,
    max_labels: int,
    channels: int = 3,
) -> Any:
    """Compiles the step of a stage for the devices of a mesh, at hand or not.

    Args:
      train_step: as `make_train_step` returns it.
      planned: of `Experiment.plan`.
      state: what it will be called with, as shapes.
      max_labels: L of the batches' labels, `[B, L]`.
      channels: C of their images, `[B, S, S, C]`.

    Returns:
      A `jax.stages.Compiled`.
    """
    size, batch_size = _shape(planned)
    batch = _batch(batch_size, size, max_labels, mesh, channels)
    values = as_float32(step_values(planned.stage, learning_rate=0.0))
    return train_step.lower(state, batch, values, key_of(0)).compile()
