"""The batches of a run, stage after stage, waiting on the devices when a step wants them."""

import collections
import contextlib
import dataclasses
import itertools
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data import (
    HostBatch,
    Order,
    Source,
    TrainExamples,
    Unreadable,
    Workers,
    make_batches,
)
from effnetv2_jax.data.batches.order import BalancedOrder
from effnetv2_jax.data.sources.labelled import LabelIndex
from effnetv2_jax.parallel.mesh import put_batch
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.progressive import Plan, PlannedStage

AHEAD = 2
"""Batches on their way to the devices while a step runs."""


Salts = Sequence[tuple[int, int]]
"""Pairs of a step and a salt, rising: from that step on, examples come in the order of the salt."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a run trains on, stage after stage, and what reads it."""

    source: Source
    config: DataConfig
    """How pictures are cropped and decoded."""
    preprocessing: Preprocessing
    """The model's: how crops are resized. Each stage has an image size of its own."""
    plan: Plan
    seed: int
    salts: Salts = ()
    unreadable: Unreadable
    """Counts the pictures that cannot be read."""
    workers: Workers | None = None
    """Processes that decode; None where threads of this one do."""
    classes: LabelIndex | None = None
    """The examples of every class, which then come equally often; None takes all equally often."""

    @property
    def order(self) -> Order:
        """The run's examples, by position."""
        salts = tuple((self.plan.examples_before(step), salt) for step, salt in self.salts)
        parts = len(self.source), self.seed, salts, self.config.repeats
        return (
            Order(*parts) if self.classes is None else BalancedOrder(*parts, classes=self.classes)
        )

    def batches(self, planned: PlannedStage, start: int) -> Generator[HostBatch, None, None]:
        """This process's rows of a stage's batches, from step `start` on if that is within it."""
        examples = TrainExamples(
            order=self.order,
            data=self.config,
            preprocessing=dataclasses.replace(
                self.preprocessing, image_size=planned.stage.image_size
            ),
            batch_size=planned.batch_size,
            first_example=self.plan.examples_before(max(start, planned.first_step)),
        )
        return make_batches(
            self.source,
            examples,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            unreadable=self.unreadable,
            workers=self.workers,
        )


class Feed(NamedTuple):
    """What one training step takes."""

    step: int
    """Counted from 0."""
    planned: PlannedStage
    batch: dict[str, Any]


def feed(data: TrainingData, mesh: Mesh, *, start: int) -> Generator[Feed, None, None]:
    """Yields every step from `start` to the end of the run, decoded and transferred ahead."""
    with contextlib.closing(host_batches(data, start=start)) as coming:
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


def host_batches(data: TrainingData, *, start: int) -> Generator[Feed, None, None]:
    """Yields this process's rows of every batch, as NumPy arrays, from step `start` on.

    The next stage is begun as soon as nothing is left of the present one that its threads have not
    begun: `data.prefetch_batches` before its end.
    """
    coming = collections.deque(planned for planned in data.plan.stages if planned.end_step > start)
    begun: collections.deque[_Begun] = collections.deque()
    try:
        while coming:
            planned = coming.popleft()
            if not begun:
                begun.append(_Begun(data.batches(planned, start)))
            steps = range(max(start, planned.first_step), planned.end_step)
            for step, batch in zip(steps, begun[0], strict=False):
                ends_soon = planned.end_step - step <= data.config.prefetch_batches
                if ends_soon and coming and len(begun) == 1:
                    begun.append(_Begun(data.batches(coming[0], start)))
                yield Feed(step, planned, batch)
            begun.popleft().close()
    finally:
        for batches in begun:
            batches.close()


class _Begun:
    """A stage's batches, which are made from now on and not from when the first one is wanted."""

    def __init__(self, batches: Generator[HostBatch, None, None]) -> None:
        self._batches = batches
        self._executor = ThreadPoolExecutor(1)
        self._first = [self._executor.submit(next, batches)]

    def __iter__(self) -> Iterator[HostBatch]:
        yield self._first.pop().result()  # Popped: its memory is not needed for the whole stage.
        yield from self._batches

    def close(self) -> None:
        """Stops the threads."""
        self._executor.shutdown()  # A generator that is running cannot be closed.
        self._batches.close()
