"""What a run will do, as a table, without reading a picture."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data.sources.open import examples_and_classes
from effnetv2_jax.models.complexity import complexity
from effnetv2_jax.models.shapes import abstract_variables
from effnetv2_jax.outputs.table import align
from effnetv2_jax.train.optimizer import learning_rate
from effnetv2_jax.train.rates import trainable_part
from effnetv2_jax.train.state import build_model
from effnetv2_jax.weights.find import find_weights

_COLUMNS = (
    "stage",
    "steps",
    "size",
    "batch",
    "epochs",
    "RandAugment",
    "mixup",
    "cutmix",
    "dropout",
    "lr at start",
    "GMACs",
)


def describe(experiment: Experiment) -> str:
    """The stages as a table, with parameters and multiply-accumulates.

    Opens the data only to count what the config does not state (`data.num_classes` and
    `data.num_train_examples`).

    Raises:
      ConfigError: the experiment cannot be planned.
      DataError: the data has to be counted and is missing.
      WeightsError: there are no such weights as `init` says.
    """
    num_examples, num_classes = examples_and_classes(experiment.data)
    plan = experiment.plan(num_examples)
    own = None
    if experiment.init:
        own = find_weights(experiment.init, name=experiment.model.name).preprocessing
    model = build_model(experiment, num_classes, own)

    randomly = experiment.augment.policy == "randaugment"
    # Tracing takes seconds, and random resizing has many stages of few sizes.
    cost_at = functools.cache(lambda size: complexity(model, height=size, width=size))
    rows: list[Sequence[str]] = [_COLUMNS]
    for planned in plan.stages:
        stage = planned.stage
        size = stage.image_size
        macs = cost_at(size).macs
        rate = learning_rate(experiment, plan, planned.first_step, num_examples=num_examples)
        steps = planned.end_step - planned.first_step
        rows.append(
            (
                f"{planned.index + 1}/{len(plan.stages)}",
                f"{planned.first_step:,} - {planned.end_step - 1:,}",
                str(size),
                f"{planned.batch_size:,}",
                f"{steps * planned.batch_size / num_examples:.2f}",
                f"{stage.randaugment_magnitude:.4g}" if randomly else "-",
                f"{stage.mixup_alpha:.3g}",
                f"{stage.cutmix_alpha:.3g}",
                f"{stage.dropout_rate:.3g}",
                f"{rate:.3g}",
                f"{macs / 1e9:.3g}",
            )
        )
    trained = []
    if experiment.trainable != Experiment.trainable:
        params = abstract_variables(model)["params"]
        part = jax.tree.leaves(trainable_part(params, experiment.trainable))
        count = sum(leaf.size for leaf in part)
        trained = [f"trains {count:,} of them, whose paths match {experiment.trainable!r}"]
    size = model.preprocessing.image_size
    cost = cost_at(size)
    computes = jnp.dtype(experiment.model.dtype).name
    network = (
        f"{experiment.model.name}, {num_classes:,} classes: {cost.trainable:,} trainable "
        f"parameters, {cost.total:,} with BatchNorm statistics; computes in {computes}"
    )
    training = (
        f"{num_examples:,} training examples, {experiment.epochs:g} epochs, "
        f"{plan.total_steps:,} steps; {experiment.optimizer.name}, "
        f"{experiment.schedule.name} learning rate, {experiment.loss} loss"
    )
    augmentation = _augmentation(experiment)
    evaluation = f"evaluation at {size} px, {cost.macs / 1e9:.3g} GMACs per image"
    start = [f"starts from {experiment.init}"] if experiment.init else []
    return "\n".join(
        [network, training, augmentation, *start, *trained, "", *align(rows), "", evaluation]
    )


def _augmentation(experiment: Experiment) -> str:
    augment, crop = experiment.augment, experiment.data.crop
    parts = ["whole pictures" if crop == "none" else f"{crop} crops"]
    parts += ["flips"] if augment.flip else []
    parts += {"randaugment": ["RandAugment"], "autoaugment": ["AutoAugment"], "none": []}[
        augment.policy
    ]
    parts += [f"cutout over {augment.cutout:g} of a side"] if augment.cutout else []
    return ", ".join(parts)
