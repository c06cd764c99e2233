"""A learning rate to begin with, from a run of a few steps (Smith, 2015, arXiv 1506.01186).

The rate rises from step to step until the loss does. The one at which the smoothed loss fell
fastest is suggested; at the lowest loss itself it is too high to begin with.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from effnetv2_jax.config.checks import check_batches
from effnetv2_jax.config.derived import derive
from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data import Unreadable, make_workers, open_sources
from effnetv2_jax.parallel.mesh import make_mesh
from effnetv2_jax.progressive import Plan
from effnetv2_jax.train.balance import balance_of
from effnetv2_jax.train.costs import fitting_batch
from effnetv2_jax.train.feed import TrainingData, feed
from effnetv2_jax.train.initial import initial_model
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.schedule import REFERENCE_BATCH
from effnetv2_jax.train.state import create_state, key_of
from effnetv2_jax.train.step import as_float32, make_train_step, step_values

STEPS = 100
LOWEST, HIGHEST = 1e-6, 1.0
"""Learning rates of a step, whatever its batch."""
DIVERGED = 4.0
"""A loss of so many times the lowest ends the search."""
SMOOTHING = 0.9
"""Of the moving mean of the loss."""
SETTLES = 10
"""Steps whose mean is still of too few losses to say how it falls."""
_SHOWN = 10
"""Steps between two lines that are reported."""


@dataclasses.dataclass(frozen=True)
class RateSearch:
    """The curve, and what it suggests. Rates are as `optimizer.learning_rate` states them."""

    suggested: float
    lowest_loss_at: float
    rates: list[float]
    losses: list[float]
    """Of every step, smoothed."""


def find_rate(
    experiment: Experiment, *, steps: int = STEPS, report: Callable[[str], None]
) -> RateSearch:
    """Trains the first stage's steps at rising rates; nothing of it is kept.

    Args:
      experiment: whose learning rate is looked for; its own and its schedule play no part.
      steps: at most.
      report: called with a line every ten steps.

    Raises:
      ConfigError: the batches do not fit the devices; or the loss never falls.
      DataError, WeightsError: the data or the weights cannot be had.
    """
    mesh = make_mesh()
    source, _ = open_sources(experiment.data)
    balance = balance_of(experiment, source)
    batch_size = None
    if experiment.batch_size == 0:
        batch_size = fitting_batch(
            experiment, mesh, num_examples=len(source), num_classes=len(source.class_names)
        )
    experiment = derive(experiment, len(source), batch_size=batch_size)
    check_batches(experiment, devices=mesh.size)
    stage = experiment.stages[0]
    batch = stage.batch_size or experiment.batch_size
    experiment = dataclasses.replace(
        experiment, stages=(stage,), epochs=(steps + 0.5) * batch / len(source)
    )
    plan: Plan = experiment.plan(len(source))
    model, variables = initial_model(experiment, source.class_names, None)
    optimizer = make_optimizer(experiment)
    state = create_state(experiment, model, optimizer, mesh, variables)
    train_step = make_train_step(experiment, model, optimizer, mesh, balance.weights)
    key = key_of(experiment.seed)
    losses: list[float] = []
    with make_workers(experiment.data) as workers:
        data = TrainingData(
            source=source,
            config=experiment.data,
            preprocessing=model.preprocessing,
            plan=plan,
            seed=experiment.seed,
            unreadable=Unreadable(experiment.data.max_unreadable),
            workers=workers,
            classes=balance.sampled,
        )
        with contextlib.closing(feed(data, mesh, start=0)) as batches:
            for step, planned, images in batches:
                values: Any = as_float32(step_values(planned.stage, rate_at(step, steps)))
                state, metrics = train_step(state, images, values, key)
                losses.append(float(metrics.get("weighted_loss", metrics["loss"])))
                if step % _SHOWN == 0:
                    shown = rate_at(step, steps) * REFERENCE_BATCH / batch
                    report(f"learning_rate {shown:.3g}: loss {losses[-1]:.4f}")
                if not losses[-1] <= DIVERGED * min(losses):  # Nor may it be NaN.
                    break
    rates = [rate_at(step, steps) * REFERENCE_BATCH / batch for step in range(len(losses))]
    return suggest(rates, losses)


def rate_at(step: int, steps: int) -> float:
    """From `LOWEST` at step 0 to `HIGHEST` at step `steps - 1`, by equal factors."""
    return float(LOWEST * (HIGHEST / LOWEST) ** (step / max(1, steps - 1)))


def suggest(rates: Sequence[float], losses: Sequence[float]) -> RateSearch:
    """What a curve suggests: the rate at which the smoothed loss falls fastest.

    Args:
      rates: rising.
      losses: of the steps at these rates; the last may be NaN.

    Raises:
      ConfigError: the loss does not fall anywhere.
    """
    smooth: list[float] = []
    mean = 0.0
    for count, loss in enumerate((loss for loss in losses if math.isfinite(loss)), 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smooth.append(mean / (1 - SMOOTHING**count))
    lowest = int(np.argmin(smooth)) if smooth else 0
    if lowest < 2:
        raise ConfigError(
            "the loss falls at no learning rate; look at the data and labels, or give the search "
            "more steps"
        )
    first = min(SETTLES, lowest // 2)
    falling = slice(first, lowest + 1)
    slopes = np.gradient(smooth[falling], np.log(rates[falling]))
    steepest = first + int(np.argmin(slopes))
    return RateSearch(rates[steepest], rates[lowest], list(rates[: len(smooth)]), smooth)
