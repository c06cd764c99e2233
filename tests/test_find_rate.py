"""The learning rate that a curve of losses suggests."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny

from effnetv2_jax.cli.rates import describe_rates
from effnetv2_jax.config import AugmentConfig, ConfigError
from effnetv2_jax.progressive import Stage
from effnetv2_jax.train.find_rate import find_rate, rate_at, suggest

RATES = [rate_at(step, 100) for step in range(100)]


def curve() -> list[float]:
    """Flat, steepest at 1e-3, lowest near 1e-1, and then not finite."""
    steps = np.log10(RATES)
    losses = 2 - 1.5 / (1 + np.exp(-4 * (steps + 3))) + np.maximum(0, steps + 1) ** 2
    return [*losses.tolist()[:-3], math.nan, math.inf, math.nan]


def test_rates_rise_by_equal_factors() -> None:
    assert RATES[0] == pytest.approx(1e-6)
    assert RATES[-1] == pytest.approx(1.0)
    assert RATES[51] / RATES[50] == pytest.approx(RATES[1] / RATES[0])


def test_it_suggests_where_the_loss_falls_fastest() -> None:
    found = suggest(RATES, curve())
    assert 5e-4 < found.suggested < 1e-2  # The smoothed curve lags behind.
    assert 3e-2 < found.lowest_loss_at < 0.5
    assert len(found.rates) == len(found.losses) == 97


def test_what_the_first_losses_do_is_chance() -> None:
    losses = curve()
    losses[:3] = [3.0, 2.0, 2.5]
    assert suggest(RATES, losses).suggested == pytest.approx(suggest(RATES, curve()).suggested, 0.5)


@pytest.mark.parametrize("losses", [[], [math.nan], [1.0, 2.0, 3.0, 4.0]])
def test_a_loss_that_never_falls_suggests_nothing(losses: list[float]) -> None:
    with pytest.raises(ConfigError, match="falls at no learning rate"):
        suggest(RATES, losses)


def test_what_is_said_and_written(tmp_path: Path) -> None:
    found = suggest(RATES, curve())
    *bars, where, last = describe_rates(found, str(tmp_path / "run"))
    assert len(bars) <= 16
    assert last.endswith(f"--config.optimizer.learning_rate={found.suggested:.2g}")
    file = tmp_path / "run" / "learning_rates.json"
    assert where == f"the curve is in {file}"
    assert json.loads(file.read_text()) == dataclasses.asdict(found)
    assert len(list(describe_rates(found, ""))) == len(bars) + 1


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_it_takes_a_run_as_it_is() -> None:
    run = tiny.experiment(
        stages=(Stage(image_size=32),),
        batch_size=0,
        augment=AugmentConfig(policy="none", flip=False),
    )
    said: list[str] = []
    found = find_rate(run, steps=40, report=said.append)
    assert said[0].startswith("learning_rate 8e-06: loss 1.")  # 32 examples of 256.
    assert found.suggested in found.rates[1:]
    assert found.suggested < found.lowest_loss_at < 8
