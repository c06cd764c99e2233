"""Training a run on for other epochs than it began with."""

import dataclasses

from etils import epath

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.outputs.checkpoints import Checkpoints
from effnetv2_jax.outputs.workdir import WorkdirError
from effnetv2_jax.progressive import Plan
from effnetv2_jax.train.schedule import learning_rate

EPOCHS = "epochs"
"""Where among a checkpoint's extras the epochs are that its run was to have then."""


def plan_from(
    experiment: Experiment, workdir: epath.Path, *, began: float, num_examples: int
) -> Plan:
    """The plan of a run that began with other epochs: its last stage alone is longer, or shorter.

    Args:
      experiment: with the present epochs.
      workdir: the run's, which may have checkpoints.
      began: the epochs that it began with.
      num_examples: in the training set.

    Raises:
      WorkdirError: the steps that are done would have been others.
      CheckpointError: the newest checkpoint cannot be read.
    """
    first = dataclasses.replace(experiment, epochs=began)
    plan = first.plan(num_examples)
    last = plan.stages[-1]
    done, until = 0, began
    with Checkpoints(workdir / "checkpoints", None) as checkpoints:
        if (newest := checkpoints.latest_step()) is not None:
            done, until = newest, checkpoints.extra(newest).get(EPOCHS, began)
    examples = experiment.epochs * num_examples - last.first_example
    steps = int(examples / last.batch_size + 1e-9)
    end = last.first_step + steps
    if steps < 1 or end < done:
        raise WorkdirError(
            f"{workdir} has done {done:,} steps, and its last stage begins at step "
            f"{last.first_step:,}; config.epochs={experiment.epochs:g} would end it before"
        )
    grown = Plan((*plan.stages[:-1], dataclasses.replace(last, end_step=end)))
    before = dataclasses.replace(experiment, epochs=until)
    for step in range(done):
        rates = (
            learning_rate(one, grown, step, num_examples=num_examples)
            for one in (before, experiment)
        )
        if len(set(rates)) > 1:
            raise WorkdirError(
                f"{workdir} holds a run of {until:g} epochs, and with {experiment.epochs:g} the "
                f"{experiment.schedule.name} learning rate of the {done:,} steps that are done "
                "would have been another; undo it, or begin a new run from its weights: "
                f"--config.init={workdir} --workdir=NEW"
            )
    return grown
