"""What a config leaves to the number of training examples: the batch, and the epochs."""

import dataclasses
import math

from effnetv2_jax.config.checks import check
from effnetv2_jax.config.experiment import Experiment

SMALLEST_BATCH = 16


def derive(
    experiment: Experiment, num_examples: int, *, batch_size: int | None = None, unit: int = 1
) -> Experiment:
    """The experiment with `batch_size` and `epochs` stated as they are for a training set.

    What is counted in epochs, warm-up and evaluations, keeps its share of a run that
    `min_steps` lengthens.

    Args:
      num_examples: in the training set.
      batch_size: where the experiment leaves it open; None takes `suited_batch`.
      unit: the batch has to be a multiple of.

    Raises:
      ConfigError: the batch does not fit other fields.
    """
    if experiment.batch_size == 0:
        chosen = batch_size or suited_batch(experiment, num_examples, unit=unit)
        experiment = dataclasses.replace(experiment, batch_size=chosen)
        check(experiment)
    steps = experiment.epochs * num_examples / experiment.batch_size
    if not 0 < steps < experiment.min_steps:
        return experiment
    epochs = float(math.ceil(experiment.min_steps * experiment.batch_size / num_examples))
    longer = epochs / experiment.epochs
    schedule, evaluation = experiment.schedule, experiment.evaluation
    in_epochs = [f.name for f in dataclasses.fields(schedule) if f.name.endswith("_epochs")]
    return dataclasses.replace(
        experiment,
        epochs=epochs,
        schedule=dataclasses.replace(
            schedule, **{name: getattr(schedule, name) * longer for name in in_epochs}
        ),
        evaluation=dataclasses.replace(evaluation, every_epochs=evaluation.every_epochs * longer),
    )


def suited_batch(experiment: Experiment, num_examples: int, *, unit: int = 1) -> int:
    """The power of 2 below the square root of the number of examples, but at least 16.

    So a small set has enough steps in an epoch, and a large one fills the devices. It is rounded up
    to a multiple of `unit` and of the experiment's groups and parts.
    """
    parts = experiment.gradient_accumulation * experiment.model.example_group
    whole = math.lcm(unit, parts, experiment.augment.mix_group or 1)
    batch = max(SMALLEST_BATCH, 2 ** int(math.log2(max(1, num_examples)) / 2))
    return -(-batch // whole) * whole


def derivation(before: Experiment, after: Experiment, num_examples: int) -> str:
    """What `derive` stated, in a sentence; empty where it changed nothing."""
    stated = []
    if before.batch_size != after.batch_size:
        stated.append(f"batch_size={after.batch_size}")
    if before.epochs != after.epochs:
        stated.append(f"epochs={after.epochs:g} (for min_steps={after.min_steps:,})")
    return f"derived from {num_examples:,} pictures: {', '.join(stated)}" if stated else ""
