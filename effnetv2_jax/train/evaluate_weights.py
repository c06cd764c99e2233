"""What `--mode=eval` does: the accuracy of a run, or of weights from elsewhere, on several sets."""

import dataclasses
import functools
import sys
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from effnetv2_jax.config.checks import check_batch
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data import DataError, Source, make_workers, open_source
from effnetv2_jax.data.report import EVALUATION, describe_data
from effnetv2_jax.data.sources.eval_sets import get_eval_set, open_eval_set
from effnetv2_jax.models.protocol import Model
from effnetv2_jax.outputs.table import align
from effnetv2_jax.parallel.mesh import make_mesh, replicated
from effnetv2_jax.train.evaluate import EvalStep, evaluate, make_eval_step
from effnetv2_jax.train.state import build_model
from effnetv2_jax.weights.class_names import same_classes
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.find import find_weights
from effnetv2_jax.weights.networks import check_same_network
from effnetv2_jax.weights.pretrained import fit
from effnetv2_jax.weights.run_config import read_run
from effnetv2_jax.weights.runs import restore_variables

Results = dict[str, dict[str, float]]
"""What `evaluate` found, by the name of the set."""


def evaluate_run(experiment: Experiment, workdir: epath.PathLike) -> Results:
    """Evaluates the newest checkpoint of the run in `workdir`, on the devices at hand.

    Returns:
      The results on `data.eval_split` and then on each of `evaluation.sets`, with the checkpoint's
      `step`.

    Raises:
      WeightsError: there is no run, or `experiment.model` is another network than the run's.
      CheckpointError: there is no checkpoint, or it is damaged.
      DataError: a set is missing or unreadable, or has other classes.
    """
    mesh = make_mesh()
    sources = _open_sources(experiment, mesh)
    run = read_run(workdir)
    check_same_network(str(workdir), run.model, experiment.model)
    model = build_model(experiment, len(sources[0].class_names), run.preprocessing)
    kinds = ("raw", "ema") if run.averaged else ("raw",)
    step, weights = restore_variables(run.workdir, model, kinds)
    results = _evaluate_all(experiment, model, weights, sources, mesh)
    return {name: {"step": float(step)} | result for name, result in results.items()}


def evaluate_init(experiment: Experiment) -> Results:
    """Evaluates the weights in `experiment.init` as they are, on the devices at hand.

    Returns:
      The results on `data.eval_split` and then on each of `evaluation.sets`.

    Raises:
      WeightsError: there are no such weights, or they do not fit the model or the data's classes.
      DataError: a set is missing or unreadable, or has other classes.
    """
    mesh = make_mesh()
    sources = _open_sources(experiment, mesh)
    found = find_weights(experiment.init, name=experiment.model.name)
    found.check(experiment.model)
    found.check_order(sources[0].class_names)
    if not found.tells_apart(sources[0].class_names):
        raise WeightsError(
            f"{found.title} tells {found.num_classes:,} classes apart, which are not the "
            f"{len(sources[0].class_names):,} of {sources[0].name}; train on it first"
        )
    model = build_model(experiment, found.num_classes, found.preprocessing)
    variables = jax.device_put(fit(found, model), replicated(mesh))
    return _evaluate_all(experiment, model, {"raw": variables}, sources, mesh)


def _open_sources(experiment: Experiment, mesh: Mesh) -> list[Source]:
    """Opens every set before the first is evaluated, so that a mistake shows at once."""
    check_batch("evaluation.batch_size", experiment.evaluation.batch_size, devices=mesh.size)
    data = experiment.data
    first = open_source(data, "eval")
    if jax.process_index() == 0:
        print("\n".join(describe_data({EVALUATION: first})), file=sys.stderr)
    data_dir = data.path if data.source == "tfds" else ""
    others = [open_eval_set(name, data_dir) for name in experiment.evaluation.sets]
    for other in others:
        if not same_classes(other.class_names, first.class_names):
            raise DataError(
                f"{other.name} has other classes than {first.name}, so it cannot be evaluated with "
                "it; leave it out of evaluation.sets"
            )
    return [first, *others]


def _evaluate_all(
    experiment: Experiment,
    model: Model,
    weights: Mapping[str, Any],
    sources: list[Source],
    mesh: Mesh,
) -> Results:
    @functools.cache  # Sets of the same classes share what is compiled.
    def eval_step(classes: tuple[int, ...] | None) -> EvalStep:
        return make_eval_step(model, mesh, loss=experiment.loss, classes=classes)

    def on(source: Source, max_labels: int, classes: tuple[int, ...] | None) -> dict[str, float]:
        data = dataclasses.replace(experiment.data, max_labels=max_labels)
        adapted = dataclasses.replace(experiment, data=data)
        step, preprocessing = eval_step(classes), model.preprocessing
        return evaluate(step, weights, source, adapted, preprocessing, mesh, workers)

    first, *others = sources
    with make_workers(experiment.data) as workers:
        results = {first.name: on(first, experiment.data.max_labels, None)}
        for name, source in zip(experiment.evaluation.sets, others, strict=True):
            chosen = get_eval_set(name)
            results[source.name] = on(source, chosen.max_labels, chosen.classes)
    return results


def results_table(results: Results) -> str:
    """Accuracy on every set, a line each, of raw and averaged weights."""
    kinds = [k for k in ("raw", "ema") if f"{k}_top1" in next(iter(results.values()))]
    rows = [("set", "images", "of", "unreadable", *(f"{k} {top}" for k in kinds for top in _TOPS))]
    for name, result in results.items():
        shares = (f"{result[f'{kind}_{key}']:.2%}" for kind in kinds for key in _TOPS.values())
        counts = (f"{result[key]:,.0f}" for key in ("examples", "available", "unreadable"))
        rows.append((name, *counts, *shares))
    return "\n".join(align(rows, left=1))


_TOPS = {"top-1": "top1", "top-5": "top5"}
