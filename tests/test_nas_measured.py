"""S by the clock: ratios within rounds, one at a time, once for each network."""

import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
import tiny

from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.nas.cost.measured import Measured, Turn, alone, in_turn
from effnetv2_jax.progressive import Stage


def steps_of(seconds: float, slowed: Callable[[], float] = lambda: 1.0) -> Turn:
    """A step that always takes so long, times whatever slows the machine down."""
    return lambda steps: steps * seconds * slowed()


def test_ratios_within_rounds_survive_what_slows_both() -> None:
    load = itertools.count(1)  # Every turn is slower than the one before.
    steady = in_turn(steps_of(0.3), steps_of(0.2), rounds=5)
    assert steady.median == pytest.approx(1.5)
    assert steady.spread == pytest.approx(0)
    assert (steady.seconds, steady.reference_seconds) == pytest.approx((0.3, 0.2))

    def slower() -> float:
        return 1 + 0.1 * next(load)

    drifting = in_turn(steps_of(0.3, slower), steps_of(0.2, slower), rounds=20)
    # Each is the first of a round as often as the other, so that a drift favours neither.
    assert drifting.median == pytest.approx(1.5, rel=0.02)
    assert 0 < drifting.spread < 0.2
    assert len(drifting.ratios) == 20


def test_a_turn_has_as_many_steps_as_it_takes_to_last() -> None:
    asked: list[int] = []

    def quick(steps: int) -> float:
        asked.append(steps)
        return steps * 0.01

    in_turn(quick, steps_of(0.5), rounds=3, turn_seconds=0.2)
    assert asked == [1, 1, 20, 20, 20]


def test_one_process_measures_at_a_time(tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()
    order: list[str] = []

    def first() -> None:
        with alone(tmp_path):
            entered.set()
            leave.wait()
            order.append("first")

    def second() -> None:
        with alone(tmp_path):
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    entered.wait()
    threads[1].start()
    threads[1].join(0.05)
    assert threads[1].is_alive()
    leave.set()
    for thread in threads:
        thread.join()
    assert order == ["first", "second"]


WIDER = dataclasses.replace(tiny.MODEL, head=128)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ModelConfig]]:
    """What was compiled; a step takes as long as its head is wide."""
    networks: list[ModelConfig] = []

    def turn(_: Measured, network: ModelConfig) -> Turn:
        networks.append(network)
        return steps_of(float(getattr(network, "head", 0)))

    with mock.patch.object(Measured, "_turn", turn):
        yield networks


def test_a_network_is_measured_once(compiled: list[ModelConfig], tmp_path: Path) -> None:
    experiment = tiny.experiment()
    cost = Measured(experiment, kept=tmp_path)
    assert cost(tiny.MODEL) == 1
    assert compiled == []
    assert cost(WIDER) == pytest.approx(2)
    assert cost(dataclasses.replace(WIDER, name="efficientnetv2-b1")) == pytest.approx(2)
    again = Measured(experiment, kept=tmp_path)
    assert again(WIDER) == pytest.approx(2)
    assert compiled == [WIDER, tiny.MODEL]
    found = again.measure(WIDER)
    assert (found.spread, len(found.ratios)) == (0, 15)
    # Of another step it says nothing.
    other = tiny.experiment(stages=(Stage(image_size=48),))
    assert Measured(other, kept=tmp_path).source != cost.source
    Measured(other, kept=tmp_path)(WIDER)
    assert compiled == [WIDER, tiny.MODEL] * 2


def test_the_source_says_what_was_measured(tmp_path: Path) -> None:
    source = Measured(tiny.experiment(), kept=tmp_path).source
    assert source.startswith("time of a training step on 8 x cpu, in turn with efficientnetv2-b0's")
    assert source.endswith(": 16 images of 40 pixels")


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_a_longer_network_takes_longer(tmp_path: Path) -> None:
    rows = tiny.MODEL.stages or ()
    deeper = dataclasses.replace(
        tiny.MODEL, stages=(rows[0], dataclasses.replace(rows[1], repeats=6))
    )
    cost = Measured(tiny.experiment(), kept=tmp_path, rounds=5)
    assert cost(deeper) > 1.5
