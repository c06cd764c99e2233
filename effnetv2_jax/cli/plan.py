"""What a run will do, as a table, without reading a picture."""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data.sources.open import examples_and_classes
from effnetv2_jax.models.complexity import complexity
from effnetv2_jax.models.protocol import Model
from effnetv2_jax.models.shapes import abstract_variables
from effnetv2_jax.outputs.table import align
from effnetv2_jax.train.rates import check_rates, factors
from effnetv2_jax.train.schedule import learning_rate
from effnetv2_jax.train.state import build_model
from effnetv2_jax.train.step import step_values
from effnetv2_jax.weights.find import find_weights

_VALUES = {
    "randaugment_magnitude": ("RandAugment", ".4g"),
    "mixup_alpha": ("mixup", ".3g"),
    "cutmix_alpha": ("cutmix", ".3g"),
    "dropout_rate": ("dropout", ".3g"),
    "stochastic_depth_rate": ("stochastic depth", ".3g"),
    "learning_rate": ("lr at start", ".3g"),
}
"""Title and format of a step's values, in the order of their columns; others come after them."""


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
    rows: list[Sequence[str]] = []
    for planned in plan.stages:
        size = planned.stage.image_size
        rate = learning_rate(experiment, plan, planned.first_step, num_examples=num_examples)
        values = step_values(planned.stage, rate)
        names = [*(name for name in _VALUES if name in values), *(values.keys() - _VALUES.keys())]
        cells = {_title(name): _cell(name, values[name]) for name in names}
        if not randomly:
            cells[_title("randaugment_magnitude")] = "-"
        steps = planned.end_step - planned.first_step
        row = {
            "stage": f"{planned.index + 1}/{len(plan.stages)}",
            "steps": f"{planned.first_step:,} - {planned.end_step - 1:,}",
            "size": str(size),
            "batch": f"{planned.batch_size:,}",
            "epochs": f"{steps * planned.batch_size / num_examples:.2f}",
            **cells,
            "GMACs": f"{cost_at(size).macs / 1e9:.3g}",
        }
        rows += [tuple(row.values())] if rows else [tuple(row), tuple(row.values())]
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
        [
            *(network, training, augmentation, *start, *_trained(experiment, model)),
            *("", *align(rows), "", evaluation),
        ]
    )


def _title(name: str) -> str:
    return _VALUES[name][0] if name in _VALUES else name.replace("_", " ")


def _cell(name: str, value: float) -> str:
    return format(value, _VALUES[name][1] if name in _VALUES else ".3g")


def _trained(experiment: Experiment, model: Model) -> Iterator[str]:
    """What of the parameters is trained, and what at a rate of its own."""
    params = abstract_variables(model)["params"]
    check_rates(params, experiment.rates)
    sizes = [leaf.size for leaf in jax.tree.leaves(params)]
    factor = jax.tree.leaves(factors(params, experiment.rates))
    if 0 in factor:
        count = sum(size for size, own in zip(sizes, factor, strict=True) if own)
        yield f"trains {count:,} of them"
    for own in sorted({own for own in factor if own not in (0, 1)}):
        count = sum(size for size, other in zip(sizes, factor, strict=True) if other == own)
        yield f"trains {count:,} of them at {own:g} times the learning rate"


def _augmentation(experiment: Experiment) -> str:
    augment, crop = experiment.augment, experiment.data.crop
    parts = ["whole pictures" if crop == "none" else f"{crop} crops"]
    parts += ["flips"] if augment.flip else []
    parts += {"randaugment": ["RandAugment"], "autoaugment": ["AutoAugment"], "none": []}[
        augment.policy
    ]
    parts += [f"cutout over {augment.cutout:g} of a side"] if augment.cutout else []
    return ", ".join(parts)
