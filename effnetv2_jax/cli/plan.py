"""What a run will do, as a table, without reading a picture."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from effnetv2_jax.config.checks import check_probe
from effnetv2_jax.config.derived import derivation, derive
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.config.optimizers import OptimizerConfig
from effnetv2_jax.data import open_source
from effnetv2_jax.data.report import survey
from effnetv2_jax.models.complexity import complexity
from effnetv2_jax.models.protocol import Model
from effnetv2_jax.models.shapes import abstract_variables
from effnetv2_jax.outputs.table import align
from effnetv2_jax.train.balance import balance_of, is_balanced
from effnetv2_jax.train.doubts import doubts
from effnetv2_jax.train.rates import check_rates, counts
from effnetv2_jax.train.schedule import learning_rate
from effnetv2_jax.train.state import build_model
from effnetv2_jax.train.step import step_values
from effnetv2_jax.weights.find import find_weights

_TITLES = {
    "randaugment_magnitude": "RandAugment",
    "mixup_alpha": "mixup",
    "cutmix_alpha": "cutmix",
    "dropout_rate": "dropout",
    "stochastic_depth_rate": "stochastic depth",
    "learning_rate": "lr at start",
}
"""Of a step's values, in the order of their columns; one without comes last, under its name."""


def describe(experiment: Experiment) -> str:
    """The stages as a table, with parameters and multiply-accumulates.

    Opens the data only to count what the config does not state (`data.num_classes` and
    `data.num_train_examples`), and then says what is in folders and tables, and to say how classes
    are balanced.

    Raises:
      ConfigError: the experiment cannot be planned.
      DataError: the data has to be counted and is missing.
      WeightsError: there are no such weights as `init` says.
    """
    num_examples, num_classes, report, train = survey(experiment.data)
    check_probe(experiment)
    stated, experiment = experiment, derive(experiment, num_examples)
    balanced: list[str] = []
    if is_balanced(experiment):
        balanced = balance_of(experiment, train or open_source(experiment.data, "train")).lines
    plan = experiment.plan(num_examples)
    own = None
    if experiment.init:
        found = find_weights(experiment.init, name=experiment.model.name)
        found.check(experiment.model)
        own = found.preprocessing
    model = build_model(experiment, num_classes, own)

    # Tracing takes seconds, and random resizing has many stages of few sizes.
    cost_at = functools.cache(lambda size: complexity(model, height=size, width=size))
    rows: list[dict[str, str]] = []
    for planned in plan.stages if plan.total_steps else ():
        size = planned.stage.image_size
        rate = learning_rate(experiment, plan, planned.first_step, num_examples=num_examples)
        steps = planned.end_step - planned.first_step
        rows.append(
            {
                "stage": f"{planned.index + 1}/{len(plan.stages)}",
                "steps": f"{planned.first_step:,} - {planned.end_step - 1:,}",
                "size": str(size),
                "batch": f"{planned.batch_size:,}",
                "epochs": f"{steps * planned.batch_size / num_examples:.2f}",
                **_value_cells(experiment, step_values(planned.stage, rate)),
                "GMACs": f"{cost_at(size).macs / 1e9:.3g}",
            }
        )
    table = align([tuple(rows[0]), *(tuple(row.values()) for row in rows)]) if rows else []
    size = model.preprocessing.image_size
    cost = cost_at(size)
    channels = experiment.model.input_channels
    of_channels = {1: "; pictures of 1 channel", 3: ""}.get(
        channels, f"; pictures of {channels} channels"
    )
    computes = jnp.dtype(experiment.model.dtype).name
    others = sorted(abstract_variables(model).keys() - {"params"})
    named = "BatchNorm statistics" if others == ["batch_stats"] else ", ".join(others)
    network = (
        f"{experiment.model.name}, {num_classes:,} classes: {cost.trainable:,} trainable "
        f"parameters{f', {cost.total:,} with {named}' if others else ''}; computes in {computes}"
        f"{of_channels}"
    )
    blocks = experiment.model.rows()
    training = (
        f"{num_examples:,} training examples, {experiment.epochs:g} epochs, "
        f"{plan.total_steps:,} steps; {experiment.optimizer.name}, "
        f"{experiment.schedule.name} learning rate, {experiment.loss} loss{_several(experiment)}"
    )
    augmentation = _augmentation(experiment)
    measured = ""
    if experiment.evaluation.metric == "average_precision":
        measured = ", by the mean over the classes of average precision"
    evaluation = f"evaluation at {size} px, {cost.macs / 1e9:.3g} GMACs per image{measured}"
    start = [f"starts from {experiment.init}"] if experiment.init else []
    start += [_probe(experiment)] if experiment.probe.views else []
    trained = _trained(experiment, model) if experiment.rates else []
    return "\n".join(
        [
            network,
            *([*align(blocks), ""] if blocks else []),
            training,
            *filter(None, [derivation(stated, experiment, num_examples)]),
            *report,
            *balanced,
            f"{experiment.optimizer.name}: {_fields(experiment.optimizer)}",
            augmentation,
            *start,
            *trained,
            "",
            *([*table, ""] if table else []),
            evaluation,
            *(f"note: {doubt}" for doubt in doubts(experiment, plan, num_examples)),
        ]
    )


def _several(experiment: Experiment) -> str:
    if experiment.evaluation.metric != "average_precision":
        return ""
    return f", up to {experiment.data.max_labels} labels an example"


def _fields(config: OptimizerConfig) -> str:
    """What an optimizer's config states, in one line."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
        if name != "name" and value is not None
    )


def _value_cells(experiment: Experiment, values: Mapping[str, float]) -> dict[str, str]:
    """The values of a step, as text under their titles."""
    cells = {}
    for name in dict.fromkeys([*_TITLES, *values]):
        if name in values:
            digits = 4 if name == "randaugment_magnitude" else 3
            cells[_TITLES.get(name, name)] = f"{values[name]:.{digits}g}"
    if experiment.augment.policy not in ("randaugment", "increasing"):
        cells[_TITLES["randaugment_magnitude"]] = "-"
    return cells


def _probe(experiment: Experiment) -> str:
    views = ("", "", " and of their mirror images")[experiment.probe.views]
    more = "" if experiment.epochs else "; that is all, and config.epochs trains on from there"
    return f"the classifier is fitted to the features of all pictures{views}{more}"


def _trained(experiment: Experiment, model: Model) -> list[str]:
    """How much of the parameters is trained, and at which rates."""
    rates = experiment.rates
    params = abstract_variables(model)["params"]
    check_rates(params, rates)
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    by_rate = list(zip(rates, counts(params, rates), strict=True))
    count = total - sum(count for (_, factor), count in by_rate if factor == 0)
    own = [f"x {factor:g} for {count:,} ({pattern!r})" for (pattern, factor), count in by_rate]
    return [f"trains {count:,} parameters; learning rate {', '.join(own)}"]


def _augmentation(experiment: Experiment) -> str:
    augment, crop = experiment.augment, experiment.data.crop
    parts = ["whole pictures" if crop == "none" else f"{crop} crops"]
    parts += [f"{experiment.data.repeats} of each"] if experiment.data.repeats > 1 else []
    parts += ["flips"] if augment.flip else []
    parts += {
        "randaugment": ["RandAugment"],
        "increasing": [f"RandAugment of increasing strength +- {augment.randaugment_deviation:g}"],
        "autoaugment": ["AutoAugment"],
        "none": [],
    }[augment.policy]
    parts += [f"cutout over {augment.cutout:g} of a side"] if augment.cutout else []
    parts += [f"erasing of {augment.erasing:.0%}"] if augment.erasing else []
    mixes = any(stage.mixup_alpha or stage.cutmix_alpha for stage in experiment.stages)
    parts += ["mixed by batch"] if mixes and augment.mix_per_batch else []
    return ", ".join(parts)
