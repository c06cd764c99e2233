"""What `--mode=eval` does: the accuracy of a run, or of weights from elsewhere, on several sets."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data import make_workers
from effnetv2_jax.models.protocol import Model
from effnetv2_jax.models.registry import family_of
from effnetv2_jax.outputs.table import align
from effnetv2_jax.outputs.workdir import Checkpoint
from effnetv2_jax.parallel.mesh import make_mesh, replicated
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.train.evaluate import TITLES, EvalStep, evaluate, make_eval_step
from effnetv2_jax.train.evaluated_sets import EvalSet, open_sets
from effnetv2_jax.train.state import build_model
from effnetv2_jax.weights.find import find_weights
from effnetv2_jax.weights.networks import check_same_network
from effnetv2_jax.weights.pretrained import fit
from effnetv2_jax.weights.run_config import RunConfig, read_run
from effnetv2_jax.weights.runs import restore_variables

Results = dict[str, dict[str, float]]
"""What `evaluate` found, by the name of the set."""

_log = logging.getLogger(__name__)


def evaluate_run(
    experiment: Experiment,
    workdir: epath.PathLike,
    *,
    checkpoint: Checkpoint = "last",
    report: Callable[[str], None] = _log.warning,
) -> Results:
    """Evaluates a checkpoint of the run in `workdir`, on the devices at hand.

    Network, preprocessing and class names are the run's. Classes are matched by name, so their
    order does not matter, and the data may have some of them alone.

    Args:
      experiment: what to evaluate on. Its evaluation may state an image size and a resizing of its
        own.
      checkpoint: a step, `last` or `best`.
      report: called with what is worth knowing of how it is evaluated.

    Returns:
      The results on `data.eval_split` and then on each of `evaluation.sets`, with the checkpoint's
      `step`.

    Raises:
      WeightsError: there is no run, or `experiment.model` is another network than the run's.
      ConfigError: `experiment` states another normalisation or interpolation than the run has.
      CheckpointError: there is no such checkpoint, or it is damaged.
      DataError: a set is missing or unreadable, or has classes that the run does not know.
    """
    mesh = make_mesh()
    run = read_run(workdir)
    check_same_network(str(workdir), run.model, experiment.model)
    preprocessing = _preprocessing(experiment, run, report)
    sets = open_sets(experiment, mesh, run.class_names, str(run.workdir), report)
    model = family_of(run.model.name).build(
        dataclasses.replace(run.model, dtype=experiment.model.dtype),
        num_classes=len(run.class_names),
        preprocessing=preprocessing,
    )
    kinds = ("raw", "ema") if run.averaged else ("raw",)
    step, weights = restore_variables(run.workdir, model, kinds, checkpoint=checkpoint)
    report(f"{run.workdir}: the checkpoint of step {step:,}")
    results = _evaluate_all(experiment, model, weights, sets, mesh)
    return {name: {"step": float(step)} | result for name, result in results.items()}


def evaluate_init(
    experiment: Experiment, *, report: Callable[[str], None] = _log.warning
) -> Results:
    """Evaluates the weights in `experiment.init` as they are, on the devices at hand.

    Classes are matched by name, where the weights came with names.

    Args:
      report: called with what is worth knowing of how they are evaluated.

    Returns:
      The results on `data.eval_split` and then on each of `evaluation.sets`.

    Raises:
      WeightsError: there are no such weights, or they do not fit the model.
      DataError: a set is missing or unreadable, or has classes that the weights do not know.
    """
    mesh = make_mesh()
    found = find_weights(experiment.init, name=experiment.model.name)
    found.check(experiment.model)
    names = found.class_names or found.num_classes
    sets = open_sets(experiment, mesh, names, found.title, report)
    found.check_order(sets[0].source.class_names)
    model = build_model(experiment, found.num_classes, found.preprocessing)
    variables = jax.device_put(fit(found, model), replicated(mesh))
    return _evaluate_all(experiment, model, {"raw": variables}, sets, mesh)


def _preprocessing(
    experiment: Experiment, run: RunConfig, report: Callable[[str], None]
) -> Preprocessing:
    """The run's, at the size and with the resizing that the evaluation states."""
    own = run.preprocessing
    stated = experiment.preprocessing(own)
    for field in ("mean", "std", "interpolation"):
        if getattr(stated, field) != getattr(own, field):
            raise ConfigError(
                f"config.data.{field} is {getattr(stated, field)}, but the weights in "
                f"{run.workdir} expect {getattr(own, field)}; leave it out"
            )
    if (stated.image_size, stated.crop_padding) != (own.image_size, own.crop_padding):
        report(f"evaluated at {_resizing(stated)}; the run's own is {_resizing(own)}")
    return stated


def _resizing(preprocessing: Preprocessing) -> str:
    kind = "squash" if preprocessing.crop_padding is None else "crop"
    return f"{preprocessing.image_size} px ({kind})"


def _evaluate_all(
    experiment: Experiment,
    model: Model,
    weights: Mapping[str, Any],
    sets: Sequence[EvalSet],
    mesh: Mesh,
) -> Results:
    @functools.cache  # Sets of the same classes share what is compiled.
    def eval_step(classes: tuple[int, ...] | None) -> EvalStep:
        metric = experiment.evaluation.metric
        return make_eval_step(model, mesh, loss=experiment.loss, metric=metric, classes=classes)

    def on(chosen: EvalSet) -> dict[str, float]:
        data = dataclasses.replace(experiment.data, max_labels=chosen.max_labels)
        adapted = dataclasses.replace(experiment, data=data)
        step, preprocessing = eval_step(chosen.choices), model.preprocessing
        return evaluate(step, weights, chosen.source, adapted, preprocessing, mesh, workers)

    with make_workers(experiment.data) as workers:
        return {chosen.source.name: on(chosen) for chosen in sets}


def results_table(results: Results) -> str:
    """Accuracy, or mean average precision, on every set, of raw and averaged weights."""
    first = next(iter(results.values()))
    columns = [
        (f"{kind} {title}", f"{kind}_{metric}")
        for kind in ("raw", "ema")
        for metric, title in TITLES.items()
        if f"{kind}_{metric}" in first
    ]
    counts = ["examples", "available", "unreadable"]
    counts += ["absent_classes"] if "absent_classes" in first else []
    titles = {"examples": "images", "available": "of", "absent_classes": "classes without"}
    rows = [("set", *(titles.get(key, key) for key in counts), *(title for title, _ in columns))]
    for name, result in results.items():
        shares = (f"{result[key]:.2%}" for _, key in columns)
        rows.append((name, *(f"{result[key]:,.0f}" for key in counts), *shares))
    return "\n".join(align(rows, left=1))
