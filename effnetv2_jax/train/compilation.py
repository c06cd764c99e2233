"""Compiles every stage's step ahead of time, while the stages before it train."""

import concurrent.futures
import os
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from effnetv2_jax.parallel.compiler import compile_lowered
from effnetv2_jax.parallel.mesh import by_example
from effnetv2_jax.progressive import Plan, PlannedStage
from effnetv2_jax.train.state import TrainState
from effnetv2_jax.train.step import TrainStep, step_settings

WORKERS = 2 if (os.cpu_count() or 1) > 2 else 1
"""Programs compiled at a time. Much of a compilation runs on one core; where there are but two, a
second one delays the first stage's, which is waited for. On a GPU there is one: see
`parallel.compiler`."""


class StageSteps:
    """The compiled training step of each stage that is still to come.

    Args:
      train_step: as `make_train_step` returns it.
      state: what it will be called with, as arrays or shapes.
      start: steps done; stages that end before are not compiled.
      max_labels: L of the batches' labels, `[B, L]`.
    """

    def __init__(
        self,
        train_step: TrainStep,
        plan: Plan,
        state: TrainState,
        mesh: Mesh,
        *,
        start: int,
        max_labels: int,
    ) -> None:
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
        )

        def compile_for(planned: PlannedStage) -> TrainStep:
            return compile_step(train_step, planned, shapes, mesh, max_labels=max_labels)

        self._compile = compile_for
        on_gpu = mesh.devices.flat[0].platform == "gpu"
        self._executor = concurrent.futures.ThreadPoolExecutor(1 if on_gpu else WORKERS)
        self._steps: dict[tuple[int, int], concurrent.futures.Future[TrainStep]] = {}
        for planned in plan.stages:
            if planned.end_step > start:
                self._begin(planned)

    def __getitem__(self, planned: PlannedStage) -> TrainStep:
        """The step of a stage; waits until it is compiled."""
        self._begin(planned)  # A run may have gone back to a stage that had ended.
        return self._steps[_shape(planned)].result()

    def close(self) -> None:
        """Gives up what has not begun to compile."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _begin(self, planned: PlannedStage) -> None:
        if _shape(planned) not in self._steps:
            self._steps[_shape(planned)] = self._executor.submit(self._compile, planned)


def _shape(planned: PlannedStage) -> tuple[int, int]:
    return planned.stage.image_size, planned.batch_size


def compile_step(
    train_step: Any, planned: PlannedStage, state: TrainState, mesh: Mesh, *, max_labels: int
) -> Any:
    """Compiles the step of a stage for the devices of a mesh, at hand or not.

    Args:
      train_step: as `make_train_step` returns it.
      state: what it will be called with, as shapes.
      max_labels: L of the batches' labels, `[B, L]`.

    Returns:
      A `jax.stages.Compiled`.
    """
    size, batch_size = _shape(planned)
    sharding = by_example(mesh)
    batch = {
        "image": jax.ShapeDtypeStruct((batch_size, size, size, 3), jnp.uint8, sharding=sharding),
        "labels": jax.ShapeDtypeStruct((batch_size, max_labels), jnp.int32, sharding=sharding),
    }
    lowered = train_step.lower(state, batch, step_settings(planned.stage, 0.0))
    return compile_lowered(lowered, mesh.devices.flat[0])
