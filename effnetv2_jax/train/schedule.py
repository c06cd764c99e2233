"""The learning rate as a function of the examples seen."""

import math

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.config.schedules import (
    Constant,
    Cosine,
    Exponential,
    ScheduleConfig,
    WarmupStableDecay,
)
from effnetv2_jax.progressive import Plan

REFERENCE_BATCH = 256
"""`OptimizerConfig.learning_rate` is stated for this many examples per step."""


def learning_rate(experiment: Experiment, plan: Plan, step: int, *, num_examples: int) -> float:
    """The learning rate of step `step`, counted from 0.

    The curve counts examples, so it does not depend on how stages divide them into batches; its
    height is proportional to the present stage's batch.

    Args:
      num_examples: in the training set.
    """
    batch = plan.stage_at(step).batch_size
    peak = experiment.optimizer.learning_rate * batch / REFERENCE_BATCH
    epoch = plan.examples_before(step) / num_examples
    return peak * share_of_peak(experiment.schedule, epoch, epochs=experiment.epochs)


def share_of_peak(config: ScheduleConfig, epoch: float, *, epochs: float) -> float:
    """What of the peak learning rate there is at `epoch` of `epochs`, both fractional.

    From `warmup_from` at epoch 0 it rises linearly until `warmup_epochs`; there, and to the end of
    the run:

    - constant: it is 1.
    - cosine: it falls from 1 to `final`, along half a cosine.
    - exponential: it is `decay_rate` to the power of the whole `decay_epochs` since epoch 0, those
      of the warm-up counted.
    - wsd: it is 1 until `decay_epochs` before the end, and falls linearly to `final`.
    """
    if epoch < config.warmup_epochs:
        return config.warmup_from + (1 - config.warmup_from) * epoch / config.warmup_epochs
    match config:
        case Constant():
            return 1.0
        case Cosine():
            progress = (epoch - config.warmup_epochs) / max(epochs - config.warmup_epochs, 1e-9)
            fall = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
            return config.final + (1 - config.final) * fall
        case Exponential():
            return config.decay_rate ** math.floor(epoch / config.decay_epochs)
        case WarmupStableDecay():
            left = max(epochs - epoch, 0.0) / config.decay_epochs
            return config.final + (1 - config.final) * min(left, 1.0)
        case _:
            raise TypeError(f"there is no learning rate for a {type(config).__name__}")
