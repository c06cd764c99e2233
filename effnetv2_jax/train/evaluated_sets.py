"""The sets that weights are evaluated on, their classes matched to the weights' by name."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
from jax.sharding import Mesh

from effnetv2_jax.config.checks import check_batch
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data import DataError, Source, open_source
from effnetv2_jax.data.report import EVALUATION, describe_data
from effnetv2_jax.data.sources.eval_sets import get_eval_set, open_eval_set
from effnetv2_jax.data.sources.label_names import numbered
from effnetv2_jax.data.sources.relabelled import RelabelledSource
from effnetv2_jax.system.text import some
from effnetv2_jax.weights.class_names import places, same_classes

_NAMED = 10
"""Classes that a message names."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalSet:
    """A set to evaluate on, with labels that are places among the model's classes."""

    source: Source
    max_labels: int
    choices: tuple[int, ...] | None = None
    """Classes that the model chooses among; None is all."""


def open_sets(
    experiment: Experiment,
    mesh: Mesh,
    classes: Sequence[str] | int,
    title: str,
    report: Callable[[str], None],
) -> list[EvalSet]:
    """Opens every set before the first is evaluated, so that a mistake shows at once.

    Args:
      classes: the names of those that the model tells apart, or their number.
      title: of the weights.
    """
    check_batch("evaluation.batch_size", experiment.evaluation.batch_size, devices=mesh.size)
    data = experiment.data
    named = data.source in ("embedded", "tfds") or (data.source == "folder" and not data.labels)
    if named:  # The names say more, and a subset has fewer.
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
    by_number = data.num_classes is not None and first.class_names == numbered(data.num_classes)
    unnamed = data.source == "tfrecord" or by_number
    labels = match_classes(first, classes, title=title, unnamed=unnamed, report=report)
    sets = [EvalSet(source=_relabelled(first, classes, labels), max_labels=data.max_labels)]
    for name, other in zip(experiment.evaluation.sets, others, strict=True):
        known = get_eval_set(name)
        choices = known.classes
        if choices is not None and labels is not None:
            choices = tuple(labels[label] for label in choices)
        source = _relabelled(other, classes, labels)
        sets.append(EvalSet(source=source, max_labels=known.max_labels, choices=choices))
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
    return some(map(repr, names), _NAMED)
