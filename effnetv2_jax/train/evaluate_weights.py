"""What `--mode=eval` does: the accuracy of a run, or of weights from elsewhere, on several sets."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from effnetv2_jax.config.checks import check_batch
from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data import DataError, Source, make_workers, open_source
from effnetv2_jax.data.report import EVALUATION, describe_data
from effnetv2_jax.data.sources.eval_sets import get_eval_set, open_eval_set
from effnetv2_jax.data.sources.relabelled import RelabelledSource
from effnetv2_jax.models.protocol import Model
from effnetv2_jax.models.registry import family_of
from effnetv2_jax.outputs.table import align
from effnetv2_jax.outputs.workdir import Checkpoint
from effnetv2_jax.parallel.mesh import make_mesh, replicated
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.train.evaluate import EvalStep, evaluate, make_eval_step
from effnetv2_jax.train.state import build_model
from effnetv2_jax.weights.class_names import places, same_classes
from effnetv2_jax.weights.find import find_weights
from effnetv2_jax.weights.networks import check_same_network
from effnetv2_jax.weights.pretrained import fit
from effnetv2_jax.weights.run_config import RunConfig, read_run
from effnetv2_jax.weights.runs import restore_variables

Results = dict[str, dict[str, float]]
"""What `evaluate` found, by the name of the set."""
_NAMED = 10
"""Classes that a message names."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Set:
    """A set to evaluate on, with labels that are places among the model's classes."""

    source: Source
    max_labels: int
    choices: tuple[int, ...] | None = None
    """Classes that the model chooses among; None is all."""


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
    sets = _open_sets(experiment, mesh, run.class_names, str(run.workdir), report)
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
    sets = _open_sets(experiment, mesh, names, found.title, report)
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


def _open_sets(
    experiment: Experiment,
    mesh: Mesh,
    classes: Sequence[str] | int,
    title: str,
    report: Callable[[str], None],
) -> list[_Set]:
    """Opens every set before the first is evaluated, so that a mistake shows at once.

    Args:
      classes: the names of those that the model tells apart, or their number.
      title: of the weights.
    """
    check_batch("evaluation.batch_size", experiment.evaluation.batch_size, devices=mesh.size)
    data = experiment.data
    if data.source != "tfrecord":  # The names say more, and a subset has fewer.
        data = dataclasses.replace(data, num_classes=None)
    first = open_source(data, "eval")
    if jax.process_index() == 0:
        report("\n".join(describe_data({EVALUATION: first})))
    data_dir = data.path if data.source == "tfds" else ""
    others = [open_eval_set(name, data_dir) for name in experiment.evaluation.sets]
    for other in others:
        if not same_classes(other.class_names, first.class_names):
            raise DataError(
                f"{other.name} has other classes than {first.name}, so it cannot be evaluated with "
                "it; leave it out of evaluation.sets"
            )
    unnamed = data.source == "tfrecord"
    labels = match_classes(first, classes, title=title, unnamed=unnamed, report=report)
    sets = [_Set(source=_relabelled(first, classes, labels), max_labels=data.max_labels)]
    for name, other in zip(experiment.evaluation.sets, others, strict=True):
        known = get_eval_set(name)
        choices = known.classes
        if choices is not None and labels is not None:
            choices = tuple(labels[label] for label in choices)
        source = _relabelled(other, classes, labels)
        sets.append(_Set(source=source, max_labels=known.max_labels, choices=choices))
    return sets


def _relabelled(
    source: Source, classes: Sequence[str] | int, labels: Sequence[int] | None
) -> Source:
    if labels is None or isinstance(classes, int):
        return source
    return RelabelledSource(source, classes, labels)


def match_classes(
    source: Source,
    classes: Sequence[str] | int,
    *,
    title: str,
    unnamed: bool = False,
    report: Callable[[str], None],
) -> list[int] | None:
    """The places of a source's classes among those that weights tell apart, by their names.

    Args:
      classes: the names that the weights came with, or the number of their classes.
      title: of the weights.
      unnamed: whether the source knows its classes by number alone.
      report: called if the source has some of the classes alone.

    Returns:
      By the source's label, the weights'. None where they are the same.

    Raises:
      DataError: the source has a class that the weights do not know, or there are no names and
        another number of classes.
    """
    theirs = source.class_names
    if not isinstance(classes, int) and same_classes(theirs, classes):
        return None
    count = classes if isinstance(classes, int) else len(classes)
    if isinstance(classes, int) or unnamed:
        if len(theirs) != count:
            which = title if isinstance(classes, int) else source.name
            raise DataError(
                f"{source.name} has {len(theirs):,} classes, and {title} tells {count:,} apart; "
                f"{which} has no names to match them by"
            )
        return None
    found = places(theirs, classes)
    strange = [name for name, place in zip(theirs, found, strict=True) if place is None]
    if strange:
        raise DataError(
            f"{source.name} has {_some(strange)}, which {title} does not know; "
            f"it tells {count:,} classes apart: {_some(classes)}"
        )
    labels = [place for place in found if place is not None]
    if len(set(labels)) < len(labels):
        raise DataError(f"{source.name} has several classes of one name: {_some(theirs)}")
    if len(labels) < count:
        report(
            f"{source.name} has {len(labels):,} of the {count:,} classes that {title} tells apart; "
            "it chooses among all of them"
        )
    return labels


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} others" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more


def _evaluate_all(
    experiment: Experiment,
    model: Model,
    weights: Mapping[str, Any],
    sets: Sequence[_Set],
    mesh: Mesh,
) -> Results:
    @functools.cache  # Sets of the same classes share what is compiled.
    def eval_step(classes: tuple[int, ...] | None) -> EvalStep:
        return make_eval_step(model, mesh, loss=experiment.loss, classes=classes)

    def on(chosen: _Set) -> dict[str, float]:
        data = dataclasses.replace(experiment.data, max_labels=chosen.max_labels)
        adapted = dataclasses.replace(experiment, data=data)
        step, preprocessing = eval_step(chosen.choices), model.preprocessing
        return evaluate(step, weights, chosen.source, adapted, preprocessing, mesh, workers)

    with make_workers(experiment.data) as workers:
        return {chosen.source.name: on(chosen) for chosen in sets}


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
