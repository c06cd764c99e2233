"""The batches of a run, stage after stage, waiting on the devices when a step wants them."""

import collections
import itertools
from collections.abc import Generator
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from effnetv2_jax.data import Source, Unreadable, train_batches
from effnetv2_jax.experiment import Experiment
from effnetv2_jax.parallel.mesh import put_batch
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.progressive import Plan, PlannedStage

AHEAD = 2
"""Batches on their way to the devices while a step runs."""


class Feed(NamedTuple):
    """What one training step takes."""

    step: int
    """Counted from 0."""
    planned: PlannedStage
    batch: dict[str, Any]


def feed(
    experiment: Experiment,
    plan: Plan,
    source: Source,
    mesh: Mesh,
    *,
    preprocessing: Preprocessing,
    start: int,
    unreadable: Unreadable,
) -> Generator[Feed, None, None]:
    """Yields every step from `start` to the end of the run, decoded and transferred ahead."""
    coming = host_batches(
        experiment, plan, source, preprocessing=preprocessing, start=start, unreadable=unreadable
    )
    ready: collections.deque[Feed] = collections.deque()
    try:
        while True:
            for item in itertools.islice(coming, AHEAD + 1 - len(ready)):
                ready.append(item._replace(batch=put_batch(item.batch, mesh)))
            if not ready:
                return
            yield ready.popleft()
    finally:
        coming.close()


def host_batches(
    experiment: Experiment,
    plan: Plan,
    source: Source,
    *,
    preprocessing: Preprocessing,
    start: int,
    unreadable: Unreadable,
) -> Generator[Feed, None, None]:
    """Yields this process's rows of every batch, as NumPy arrays, from step `start` on."""
    for planned in plan.stages:
        steps = range(max(start, planned.first_step), planned.end_step)
        if not steps:
            continue
        batches = train_batches(
            source,
            experiment.data,
            image_size=planned.stage.image_size,
            preprocessing=preprocessing,
            batch_size=planned.batch_size,
            first_example=plan.examples_before(steps.start),
            seed=experiment.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            unreadable=unreadable,
        )
        try:
            for step, batch in zip(steps, batches, strict=False):
                yield Feed(step, planned, batch)
        finally:
            batches.close()
