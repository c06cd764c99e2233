"""The batches of a run: stage after stage, the next one begun before the present one ends."""

import contextlib
import dataclasses
import itertools
import threading
import time
from collections.abc import Generator
from typing import Any

import jax
import numpy as np
import pytest
import tiny

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data import (
    DataError,
    HostBatch,
    Order,
    Source,
    TrainExamples,
    Unreadable,
    make_batches,
    open_source,
)
from effnetv2_jax.parallel.mesh import make_mesh
from effnetv2_jax.preprocessing import squashed
from effnetv2_jax.progressive import Plan, Stage
from effnetv2_jax.train import feed as module
from effnetv2_jax.train.feed import Feed, TrainingData, feed, host_batches

SIZES = (32, 40, 48)
STEPS = 4
"""Of each stage."""
PREPROCESSING = squashed(32)
TINY = tiny.experiment(
    steps=STEPS * len(SIZES), stages=tuple(Stage(image_size=size) for size in SIZES)
)
TINY = dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, prefetch_batches=2))
SOURCE = open_source(TINY.data, "train")


def batches(
    experiment: Experiment = TINY, *, start: int = 0
) -> contextlib.closing[Generator[Feed, None, None]]:
    return contextlib.closing(host_batches(data(experiment), start=start))


def data(experiment: Experiment = TINY, **fields: Any) -> TrainingData:
    return TrainingData(
        source=SOURCE,
        config=experiment.data,
        preprocessing=PREPROCESSING,
        plan=plan(experiment),
        seed=experiment.seed,
        unreadable=Unreadable(0),
        **fields,
    )


def plan(experiment: Experiment = TINY) -> Plan:
    return experiment.plan(len(SOURCE))


def one_by_one() -> list[tuple[int, int, dict[str, np.ndarray]]]:
    """Step, stage and batch of the whole run, each stage opened after the one before."""
    found = []
    for planned in plan().stages:
        examples = TrainExamples(
            order=Order(len(SOURCE), TINY.seed),
            data=TINY.data,
            preprocessing=squashed(planned.stage.image_size),
            batch_size=planned.batch_size,
            first_example=planned.first_example,
        )
        with contextlib.closing(make_batches(SOURCE, examples)) as loader:
            for step in range(planned.first_step, planned.end_step):
                found.append((step, planned.index, next(loader)))
    return found


class Watched:
    """Stands for `make_batches`, and records by image size what begins, has a batch and ends."""

    def __init__(self, *, fails_at: int | None = None) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.has_batch = {size: threading.Event() for size in SIZES}
        self._fails_at = fails_at

    def __call__(
        self, source: Source, examples: TrainExamples, **options: Any
    ) -> Generator[HostBatch, None, None]:
        image_size = examples.preprocessing.image_size
        self.begun.append(image_size)
        with contextlib.closing(make_batches(source, examples, **options)) as loader:
            for batch in loader:
                if image_size == self._fails_at:
                    raise DataError("failed")
                self.has_batch[image_size].set()
                try:
                    yield batch
                except GeneratorExit:
                    self.ended.append(image_size)
                    raise


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    watched = Watched()
    monkeypatch.setattr(module, "make_batches", watched)
    return watched


def ended(before: set[threading.Thread]) -> bool:
    """Whether only the threads of `before` run, or soon will."""
    deadline = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    return not set(threading.enumerate()) - before


@pytest.mark.parametrize("prefetch", [1, 2, 100])
@pytest.mark.parametrize("start", [0, 2, STEPS, 3 * STEPS - 1])
def test_batches_are_those_of_the_stages_one_by_one(start: int, prefetch: int) -> None:
    config = dataclasses.replace(TINY.data, prefetch_batches=prefetch)
    with batches(dataclasses.replace(TINY, data=config), start=start) as found:
        for item, (step, stage, batch) in itertools.zip_longest(found, one_by_one()[start:]):
            assert (item.step, item.planned.index) == (step, stage)
            assert item.batch.keys() == batch.keys()
            for name in batch:
                np.testing.assert_array_equal(item.batch[name], batch[name])


def test_what_reaches_the_devices_is_the_same() -> None:
    mesh = make_mesh(jax.devices()[:2])
    with contextlib.closing(feed(data(), mesh, start=0)) as found:
        for item, (step, stage, batch) in itertools.zip_longest(found, one_by_one()):
            assert (item.step, item.planned.index) == (step, stage)
            np.testing.assert_array_equal(item.batch["image"], batch["image"])


def test_the_next_stage_has_begun_before_the_present_one_ends(watched: Watched) -> None:
    with batches() as found:
        begun, over = [], []
        for item in found:
            begun.append(len(watched.begun))
            over.append(len(watched.ended))
            following = item.planned.index + 1
            if item.step == item.planned.end_step - 1 and following < len(SIZES):
                assert watched.has_batch[SIZES[following]].wait(5)
    assert tuple(watched.begun) == tuple(watched.ended) == SIZES
    # With two batches of each stage to come, and no earlier.
    assert begun == [1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3]
    assert over == [0] * STEPS + [1] * STEPS + [2] * STEPS


@pytest.mark.parametrize("taken", [1, STEPS - 1, STEPS, STEPS + 1, 3 * STEPS])
def test_closing_early_stops_everything(watched: Watched, taken: int) -> None:
    before = set(threading.enumerate())
    with batches() as found:
        for _ in range(taken):
            next(found)
    assert ended(before)
    assert next(found, None) is None


def test_nothing_is_begun_before_the_first_batch_is_wanted(watched: Watched) -> None:
    before = set(threading.enumerate())
    with batches():
        pass
    assert watched.begun == []
    assert ended(before)


def test_a_failure_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "make_batches", Watched(fails_at=SIZES[1]))
    before = set(threading.enumerate())
    with batches() as found:
        assert [next(found).step for _ in range(STEPS)] == list(range(STEPS))
        with pytest.raises(DataError, match="failed"):
            next(found)
    assert ended(before)
