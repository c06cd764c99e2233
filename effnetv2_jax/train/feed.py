"""The batches of a run, stage after stage, waiting on the devices when a step wants them."""

import collections
import itertools
from collections.abc import Generator, Iterator
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from effnetv2_jax.data import Source, Unreadable, train_batches
from effnetv2_jax.experiment import Experiment
from effnetv2_jax.parallel.mesh import put_batch
from effnetv2_jax.progressive import Plan, PlannedStage

AHEAD = 2
"""Batches on their way to the devices while a step runs."""


class Feed(NamedTuple):
    """What one training step takes."""

    step: int
    """Counted from 0."""
    planned: PlannedStage
    batch: dict[str, jax.Array]


def feed(
    experiment: Experiment,
    plan: Plan,
    source: Source,
    mesh: Mesh,
    *,
    start: int,
    unreadable: Unreadable,
) -> Iterator[Feed]:
    """Yields every step from `start` to the end of the run, decoded and transferred ahead."""
    coming = _host_batches(experiment, plan, source, mesh, start=start, unreadable=unreadable)
    ready: collections.deque[Feed] = collections.deque()
    try:
        while True:
            ready.extend(itertools.islice(coming, AHEAD + 1 - len(ready)))
            if not ready:
                return
            yield ready.popleft()
    finally:
        coming.close()


def _host_batches(
    experiment: Experiment,
    plan: Plan,
    source: Source,
    mesh: Mesh,
    *,
    start: int,
    unreadable: Unreadable,
) -> Generator[Feed, None, None]:
    for planned in plan.stages:
        steps = range(max(start, planned.first_step), planned.end_step)
        if not steps:
            continue
        batches = train_batches(
            source,
            experiment.data,
            image_size=planned.stage.image_size,
            batch_size=planned.batch_size,
            first_example=plan.examples_before(steps.start),
            seed=experiment.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            unreadable=unreadable,
        )
        try:
            for step, batch in zip(steps, batches):
                yield Feed(step, planned, put_batch(batch, mesh))
        finally:
            batches.close()
