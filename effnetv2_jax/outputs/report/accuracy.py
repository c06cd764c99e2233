"""How good predictions are: accuracy with its interval, precision and recall, calibration."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from effnetv2_jax.outputs.predictions import Predictions

BINS = 10
_NORMAL = 1.959963984540054
"""Standard deviations that hold 95 % of a normal distribution."""


def interval(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, `right` of `count`, by Wilson (1927); [0, 1] of no example."""
    if not count:
        return 0.0, 1.0
    share, square = right / count, _NORMAL**2
    centre = (share + square / (2 * count)) / (1 + square / count)
    half = _NORMAL * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    half /= 1 + square / count
    return max(0.0, centre - half), min(1.0, centre + half)


class ClassRow(NamedTuple):
    """How well a class is told from the others; shares in [0, 1], 0 where nothing was counted."""

    name: str
    support: int
    """Pictures of the class."""
    precision: float
    """Share of what is predicted as the class that is of it."""
    recall: float
    """Share of the class that is predicted as such."""
    f1: float
    mistaken_for: str
    """The class that most of the others are predicted as; empty where all are right."""


class Confusion(NamedTuple):
    """Pictures of one class that are predicted as another, or as their own."""

    label: int
    predicted: int
    pictures: int


def confusions(predictions: Predictions, classes: int) -> list[Confusion]:
    """The cells of the confusion matrix that are not empty, the largest first."""
    cells = predictions.label.astype(np.int64) * classes + predictions.best[:, 0]
    places, counts = np.unique(cells, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    labels, predicted = np.divmod(places[order], classes)
    columns = (labels.tolist(), predicted.tolist(), counts[order].tolist())
    return [Confusion(*cell) for cell in zip(*columns, strict=True)]


def class_rows(cells: Sequence[Confusion], names: Sequence[str]) -> list[ClassRow]:
    """A row for each class.

    Args:
      cells: of `confusions`.
      names: by label.
    """
    support, predicted, right = ([0] * len(names) for _ in range(3))
    mistaken: dict[int, int] = {}
    for cell in cells:
        support[cell.label] += cell.pictures
        predicted[cell.predicted] += cell.pictures
        if cell.label == cell.predicted:
            right[cell.label] = cell.pictures
        else:
            mistaken.setdefault(cell.label, cell.predicted)
    return [
        ClassRow(
            name=name,
            support=support[label],
            precision=right[label] / max(predicted[label], 1),
            recall=right[label] / max(support[label], 1),
            f1=2 * right[label] / max(support[label] + predicted[label], 1),
            mistaken_for=names[mistaken[label]] if label in mistaken else "",
        )
        for label, name in enumerate(names)
    ]


class Bin(NamedTuple):
    """Predictions of about one probability."""

    low: float
    high: float
    pictures: int
    probability: float
    """Mean of what was predicted."""
    accuracy: float


class Calibration(NamedTuple):
    """Whether the predicted probability is the share that is right."""

    bins: list[Bin]
    """Those that are not empty."""
    error: float
    """Expected calibration error: the mean distance between the two, by pictures."""
    probability: float
    """Mean of what was predicted."""
    accuracy: float


def calibration(predictions: Predictions, bins: int = BINS) -> Calibration:
    """Compares the probability of the predicted class with accuracy, in bins of equal width."""
    probability = predictions.probability[:, 0].astype(np.float64)
    right = predictions.right.astype(np.float64)
    places = np.minimum((probability * bins).astype(int), bins - 1)
    found = []
    for place in range(bins):
        members = places == place
        if count := int(members.sum()):
            low, high = place / bins, (place + 1) / bins
            means = float(probability[members].mean()), float(right[members].mean())
            found.append(Bin(low, high, count, *means))
    total = max(len(predictions), 1)
    error = sum(each.pictures * abs(each.probability - each.accuracy) for each in found) / total
    return Calibration(
        found,
        error,
        float(probability.mean()) if len(predictions) else 0.0,
        float(right.mean()) if len(predictions) else 0.0,
    )


def worth_a_look(predictions: Predictions, most: int) -> tuple[list[int], list[int]]:
    """Rows of the pictures with the highest loss, and of the least certain that are right."""
    highest = np.argsort(-predictions.loss, kind="stable")[:most]
    right = np.flatnonzero(predictions.right)
    least = right[np.argsort(predictions.probability[right, 0], kind="stable")][:most]
    return highest.tolist(), least.tolist()
