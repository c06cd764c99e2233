"""Learning rate curves against their formulas, and the ends of each."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import tiny

from effnetv2_jax.config import (
    ConfigError,
    Constant,
    Cosine,
    Experiment,
    Exponential,
    WarmupStableDecay,
    recipes,
)
from effnetv2_jax.config.checks import check
from effnetv2_jax.config.schedules import SCHEDULES, ScheduleConfig
from effnetv2_jax.progressive import Stage
from effnetv2_jax.train.schedule import learning_rate, share_of_peak

IMAGENET = 1_256_144


def imagenet_rate(step: int) -> float:
    stages = (Stage(image_size=128), Stage(image_size=300))
    experiment = recipes.imagenet("efficientnetv2-s", "paper", stages)
    return learning_rate(experiment, experiment.plan(IMAGENET), step, num_examples=IMAGENET)


def test_imagenet_learning_rate_around_the_warmup() -> None:
    # 5 epochs of 306.68 steps each: the warm-up ends inside step 1533.
    assert imagenet_rate(0) == 0
    assert imagenet_rate(767) == pytest.approx(0.256 / 2, rel=1e-3)
    assert imagenet_rate(1533) == pytest.approx(0.256, rel=1e-3)
    assert imagenet_rate(1534) == pytest.approx(0.256 * 0.97**2)
    assert imagenet_rate(1534) == pytest.approx(0.2409, abs=5e-5)


def test_imagenet_learning_rate_falls_every_2_4_epochs() -> None:
    # 350 / 2.4 = 145.8 falls.
    assert imagenet_rate(107_335) == pytest.approx(0.256 * 0.97**145)
    third_fall = 3 * 2.4 * IMAGENET / 4096
    assert imagenet_rate(int(third_fall)) == pytest.approx(0.256 * 0.97**2)
    assert imagenet_rate(int(third_fall) + 1) == pytest.approx(0.256 * 0.97**3)


def shares(config: ScheduleConfig, *epochs: float) -> list[float]:
    """Of a run of 10 epochs."""
    return [share_of_peak(config, epoch, epochs=10.0) for epoch in epochs]


def test_constant_is_the_peak_to_the_end() -> None:
    assert shares(Constant(), 0.0, 9.9, 10.0) == [1.0, 1.0, 1.0]
    assert shares(Constant(warmup_epochs=2.0), 0.0, 1.0, 2.0, 10.0) == [0.0, 0.5, 1.0, 1.0]


def test_a_warmup_may_begin_above_0() -> None:
    found = shares(Constant(warmup_epochs=2.0, warmup_from=0.1), 0.0, 1.0, 2.0)
    assert found == pytest.approx([0.1, 0.55, 1.0])
    with pytest.raises(ConfigError, match=r"schedule.warmup_from must be in \[0, 1\], not 2"):
        check(tiny.experiment(schedule=Constant(warmup_from=2.0)))


def test_cosine_falls_from_the_warmup_to_the_end() -> None:
    at = shares(Cosine(warmup_epochs=2.0), 0.0, 1.0, 2.0, 6.0, 10.0)
    assert at == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0])
    final = shares(Cosine(warmup_epochs=2.0, final=0.2), 0.0, 2.0, 6.0, 10.0)
    assert final == pytest.approx([0.0, 1.0, 0.6, 0.2])
    # A warm-up as long as the run.
    assert shares(Cosine(warmup_epochs=10.0), 5.0, 10.0) == pytest.approx([0.5, 1.0])


def test_exponential_counts_from_the_start() -> None:
    config = Exponential(warmup_epochs=2.5, decay_rate=0.5, decay_epochs=1.0)
    assert shares(config, 0.0, 1.25, 2.5, 2.99, 3.0) == [0.0, 0.5, 0.25, 0.25, 0.125]
    assert shares(config, 10.0) == [0.5**10]


def test_warmup_stable_decay() -> None:
    config = WarmupStableDecay(warmup_epochs=2.0, decay_epochs=4.0)
    at = shares(config, 0.0, 1.0, 2.0, 6.0, 7.0, 9.0, 10.0)
    assert at == pytest.approx([0.0, 0.5, 1.0, 1.0, 0.75, 0.25, 0.0])
    final = dataclasses.replace(config, final=0.1)
    assert shares(final, 6.0, 8.0, 10.0) == pytest.approx([1.0, 0.55, 0.1])
    # The last steps of a run may reach past its epochs by a rounding error.
    assert shares(final, 10.000001) == pytest.approx([0.1])


def test_a_warmup_and_a_decay_longer_than_the_run_are_refused() -> None:
    run = tiny.experiment(epochs=10.0, schedule=WarmupStableDecay(warmup_epochs=6, decay_epochs=4))
    check(run)
    with pytest.raises(ConfigError, match=r"warmup_epochs and decay_epochs are 10 together"):
        check(dataclasses.replace(run, epochs=9.5))


def test_every_schedule_has_a_curve() -> None:
    needed: dict[str, Any] = {"decay_rate": 0.5, "decay_epochs": 1.0}
    for kind in SCHEDULES.values():
        names = {field.name for field in dataclasses.fields(kind)}
        config = kind(**{name: value for name, value in needed.items() if name in names})
        assert 0 <= share_of_peak(config, 1.0, epochs=10.0) <= 1


def test_learning_rate_follows_the_batch_and_its_curve_the_examples() -> None:
    def curve(*batch_sizes: int) -> list[float]:
        stages = tuple(Stage(image_size=32, batch_size=batch) for batch in batch_sizes)
        experiment: Experiment = tiny.experiment(
            stages=stages, epochs=8.0, schedule=Cosine(warmup_epochs=1.0)
        )
        plan = experiment.plan(1024)
        # At every half epoch, whatever step that is.
        steps = [
            next(s for s in range(plan.total_steps) if plan.examples_before(s) >= 512 * half)
            for half in range(16)
        ]
        return [learning_rate(experiment, plan, step, num_examples=1024) for step in steps]

    same, halved = curve(256, 256), curve(256, 128)
    assert halved[:8] == pytest.approx(same[:8])
    assert halved[8:] == pytest.approx(np.array(same[8:]) / 2)
