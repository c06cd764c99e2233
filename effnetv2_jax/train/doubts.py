"""What of a run can be done, and will hardly be what was meant."""

from collections.abc import Iterator

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data.sources.open import LISTED
from effnetv2_jax.progressive import Plan
from effnetv2_jax.train.schedule import share_of_peak

FEW_STEPS = 200
"""In fewer, hardly any network learns from scratch, and few learn anew what they knew."""
_LEFT = 0.05
"""Share of BatchNorm's initial statistics in those at the end from which on it is said."""


def doubts(experiment: Experiment, plan: Plan, num_examples: int) -> Iterator[str]:
    """Says of a run, a sentence each, what is worth a second look before it starts.

    Args:
      plan: its stages.
      num_examples: in the training set.
    """
    steps, epochs, schedule = plan.total_steps, experiment.epochs, experiment.schedule
    if not steps:  # A head is fitted, and that is all.
        return
    if schedule.warmup_epochs >= epochs:
        last = plan.examples_before(steps - 1) / num_examples
        reached = share_of_peak(schedule, last, epochs=epochs)
        yield (
            f"config.schedule.warmup_epochs is {schedule.warmup_epochs:g}, and the run has "
            f"{epochs:g} epochs: it ends while the learning rate still rises, at {reached:.0%} of "
            "its peak"
        )
    if experiment.data.max_labels > 1 and experiment.data.source in LISTED:
        if experiment.loss == "softmax":
            yield (
                "config.loss=softmax shares one probability out among an example's labels; sigmoid "
                "asks for each by itself"
            )
        if experiment.evaluation.metric == "accuracy":
            yield (
                "config.evaluation.metric is accuracy, for which any of an example's labels is "
                "right; average_precision measures all of them"
            )
    largest = max(planned.batch_size for planned in plan.stages)
    if largest > num_examples:
        yield (
            f"a batch of {largest:,} holds more examples than the {num_examples:,} that there are, "
            "so that some are in it twice; a smaller config.batch_size gives more steps"
        )
    if steps < FEW_STEPS:
        yield (
            f"the run has {steps:,} steps, which are few for any recipe; more config.epochs or a "
            "smaller config.batch_size gives more"
        )
    momentum = getattr(experiment.model, "bn_momentum", 0.0)
    frozen = getattr(experiment.model, "bn_frozen", False)
    left = momentum**steps
    if left > _LEFT and not frozen and not experiment.init:
        yield (
            f"after {steps:,} steps {left:.0%} of BatchNorm's statistics are still those it began "
            f"with (config.model.bn_momentum={momentum:g}), and evaluation computes with them; a "
            "lower momentum or more steps help"
        )
