"""How a run makes up for classes that are rare: weights in its loss, or balanced sampling."""

import difflib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data import DataError, Source
from effnetv2_jax.data.sources.folder_layout import shown
from effnetv2_jax.data.sources.label_scan import label_index
from effnetv2_jax.data.sources.labelled import LabelIndex


class Balance(NamedTuple):
    """What makes up for imbalance."""

    weights: list[float] | None
    """Of the classes in the loss, in their order; None where all weigh the same."""
    sampled: LabelIndex | None
    """The examples of every class, where classes come equally often."""
    lines: list[str]
    """What a user should know of it."""


def is_balanced(experiment: Experiment) -> bool:
    """Whether the config asks for anything of it."""
    sampled = experiment.data.sampling == "balanced"
    return sampled or experiment.balanced_loss or bool(experiment.class_weights)


def balance_of(experiment: Experiment, source: Source) -> Balance:
    """What the config asks for, for these training data.

    Raises:
      ConfigError: `class_weights` names a class that there is not.
      DataError: no example has a label.
    """
    balanced = experiment.data.sampling == "balanced"
    names = source.class_names
    if not (balanced or experiment.balanced_loss):
        weights = _stated(experiment, names)
        return Balance(weights, None, _of_weights(experiment, names, weights))
    index = label_index(source)
    if not index.counts.any():
        raise DataError(f"{source.name} has no labels, and so no classes to balance")
    if balanced:
        weights = _stated(experiment, names)
        lines = [_of_sampling(names, index, len(source)), *_of_weights(experiment, names, weights)]
        return Balance(weights, index, lines)
    weights = balanced_weights(experiment.loss, index.counts, len(source))
    return Balance(weights, None, _of_weights(experiment, names, weights))


def balanced_weights(loss: str, counts: Sequence[int] | np.ndarray, examples: int) -> list[float]:
    """The weights that `Experiment.balanced_loss` means.

    Args:
      loss: one of `effnetv2_jax.ops.losses.LOSSES`.
      counts: `[K]`, how many examples have each class.
      examples: in all.

    Returns:
      `[K]`; 1 for a class that no example has, or with the sigmoid loss every one.
    """
    count = np.array(counts, np.float64)
    there = count > 0
    weights = np.ones(len(count))
    if loss == "softmax":
        weights[there] = count.sum() / (there.sum() * count[there])
    else:
        there &= count < examples
        weights[there] = (examples - count[there]) / count[there]
    return [float(weight) for weight in weights]


def _stated(experiment: Experiment, names: Sequence[str]) -> list[float] | None:
    if not experiment.class_weights:
        return None
    stated = dict(experiment.class_weights)
    for name in stated:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"config.class_weights: there is no class {name!r}{hint}")
    return [stated.get(name, 1.0) for name in names]


def _of_weights(
    experiment: Experiment, names: Sequence[str], weights: Sequence[float] | None
) -> list[str]:
    if weights is None:
        return []
    how = "as stated"
    if experiment.balanced_loss:
        formula = "N / (K n)" if experiment.loss == "softmax" else "(N - n) / n"
        how = f"balanced, {formula}"
    least, most = int(np.argmin(weights)), int(np.argmax(weights))
    text = (
        f"class weights ({how}): from {weights[least]:.3g} for {shown(names[least])} to "
        f"{weights[most]:.3g} for {shown(names[most])}; weighted_loss is minimised, loss and "
        "evaluation do not weigh"
    )
    return [text]


def _of_sampling(names: Sequence[str], index: LabelIndex, examples: int) -> str:
    present = np.flatnonzero(index.counts)
    share = examples / len(present)
    rarest = int(present[np.argmin(index.counts[present])])
    most = int(np.argmax(index.counts))
    parts = [
        f"{share / index.counts[label]:.3g} times one of {shown(names[label])} "
        f"({index.counts[label]:,})"
        for label in (rarest, most)
    ]
    return (
        f"balanced sampling: each of {len(present):,} classes gets the same share; an epoch of "
        f"{examples:,} examples shows {' and '.join(parts)}, and metrics of training are of these"
    )
