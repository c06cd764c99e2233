"""The batches of a run, stage after stage, waiting on the devices when a step wants them."""

import collections
import contextlib
import itertools
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data import Source, Unreadable, Workers, train_batches
from effnetv2_jax.parallel.mesh import put_batch
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.progressive import Plan, PlannedStage

AHEAD = 2
"""Batches on their way to the devices while a step runs."""


Salts = Sequence[tuple[int, int]]
"""Pairs of a step and a salt, rising: from that step on, examples come in the order of the salt."""


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
    salts: Salts = (),
    workers: Workers | None = None,
) -> Generator[Feed, None, None]:
    """Yields every step from `start` to the end of the run, decoded and transferred ahead."""
    coming = host_batches(
        experiment,
        plan,
        source,
        preprocessing=preprocessing,
        start=start,
        unreadable=unreadable,
        salts=salts,
        workers=workers,
    )
    with contextlib.closing(coming):
        yield from on_devices(coming, mesh)


def on_devices(coming: Iterator[Feed], mesh: Mesh) -> Iterator[Feed]:
    """Yields batches of NumPy arrays as arrays on the mesh, transferred ahead."""
    ready: collections.deque[Feed] = collections.deque()
    while True:
        for item in itertools.islice(coming, AHEAD + 1 - len(ready)):
            ready.append(item._replace(batch=put_batch(item.batch, mesh)))
        if not ready:
            return
        yield ready.popleft()


def host_batches(
    experiment: Experiment,
    plan: Plan,
    source: Source,
    *,
    preprocessing: Preprocessing,
    start: int,
    unreadable: Unreadable,
    salts: Salts = (),
    workers: Workers | None = None,
) -> Generator[Feed, None, None]:
    """Yields this process's rows of every batch, as NumPy arrays, from step `start` on.

    The next stage is begun as soon as nothing is left of the present one that its threads have not
    begun: `data.prefetch_batches` before its end.
    """

    def begin(planned: PlannedStage) -> "_Begun":
        batches = train_batches(
            source,
            experiment.data,
            image_size=planned.stage.image_size,
            preprocessing=preprocessing,
            batch_size=planned.batch_size,
            first_example=plan.examples_before(max(start, planned.first_step)),
            seed=experiment.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            unreadable=unreadable,
            salts=by_position(salts, plan),
            workers=workers,
        )
        return _Begun(batches)

    coming = collections.deque(planned for planned in plan.stages if planned.end_step > start)
    begun: collections.deque[_Begun] = collections.deque()
    try:
        while coming:
            planned = coming.popleft()
            if not begun:
                begun.append(begin(planned))
            steps = range(max(start, planned.first_step), planned.end_step)
            for step, batch in zip(steps, begun[0], strict=False):
                ends_soon = planned.end_step - step <= experiment.data.prefetch_batches
                if ends_soon and coming and len(begun) == 1:
                    begun.append(begin(coming[0]))
                yield Feed(step, planned, batch)
            begun.popleft().close()
    finally:
        for batches in begun:
            batches.close()


def by_position(salts: Salts, plan: Plan) -> list[tuple[int, int]]:
    """The salts by place in the run's order of examples, as `train_batches` takes them."""
    return [(plan.examples_before(step), salt) for step, salt in salts]


class _Begun:
    """A stage's batches, which are made from now on and not from when the first one is wanted."""

    def __init__(self, batches: Generator[dict[str, Any], None, None]) -> None:
        self._batches = batches
        self._executor = ThreadPoolExecutor(1)
        self._first = [self._executor.submit(next, batches)]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield self._first.pop().result()  # Popped: its memory is not needed for the whole stage.
        yield from self._batches

    def close(self) -> None:
        """Stops the threads."""
        self._executor.shutdown()  # A generator that is running cannot be closed.
        self._batches.close()
