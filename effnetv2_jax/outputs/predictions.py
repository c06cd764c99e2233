"""What an evaluation predicted for each picture, as arrays and as `predictions_eval.csv`."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from numpy.typing import NDArray

from effnetv2_jax.outputs.storage import read_fresh, write_text

PREDICTIONS = "predictions_eval.csv"
_COLUMNS = (
    "example",
    "file",
    "class",
    "predicted",
    "right",
    "probability",
    "class_probability",
    "loss",
    "second",
    "second_probability",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """What is predicted for N examples, those left out that cannot be read or have no label."""

    index: NDArray[np.int64]
    """`[N]`: their places in the source, rising."""
    labels: NDArray[np.int32]
    """`[N, L]`, -1 where an example has fewer."""
    best: NDArray[np.int32]
    """`[N, k]`: the most probable classes, the first before all; k is at least 1."""
    probability: NDArray[np.float32]
    """`[N, k]`: theirs, in [0, 1]."""
    own_probability: NDArray[np.float32]
    """`[N]`: of the label; of several the highest."""
    loss: NDArray[np.float32]
    """`[N]`: without label smoothing, in nats."""

    def __len__(self) -> int:
        return len(self.index)

    @property
    def right(self) -> NDArray[np.bool_]:
        """`[N]`: whether the most probable class is among the labels."""
        return np.asarray((self.labels == self.best[:, :1]).any(1))

    @property
    def label(self) -> NDArray[np.int32]:
        """`[N]`: the label; of several the one that is predicted, or else the first."""
        return np.where(self.right, self.best[:, 0], self.labels[:, 0])


def write_predictions(
    path: epath.Path, predictions: Predictions, files: Sequence[str], classes: Sequence[str]
) -> None:
    """Writes a row for each example.

    Args:
      files: `[N]`, what the examples are called.
      classes: by label. Several labels of an example stand one under the other in their cell.
    """
    names = [_cell(name) for name in classes]
    second = predictions.best[:, 1].tolist() if predictions.best.shape[1] > 1 else []
    # By hand: 50,000 rows in half the time of the csv module's writer.
    lines = [
        f"{index},{_cell(file)},{own},{names[best]},{right:d},{share:.6g},{own_share:.6g},{loss:.6g}"
        for index, file, own, best, right, share, own_share, loss in zip(
            predictions.index.tolist(),
            files,
            _label_cells(predictions, classes),
            predictions.best[:, 0].tolist(),
            predictions.right.tolist(),
            predictions.probability[:, 0].tolist(),
            predictions.own_probability.tolist(),
            predictions.loss.tolist(),
            strict=True,
        )
    ]
    seconds = [","] * len(lines)
    if second:
        shares = predictions.probability[:, 1].tolist()
        seconds = [f"{names[n]},{share:.6g}" for n, share in zip(second, shares, strict=True)]
    rows = [",".join(_COLUMNS), *(",".join(row) for row in zip(lines, seconds, strict=True)), ""]
    # A file's name may be any bytes.
    write_text(path, "\n".join(rows).encode(errors="backslashreplace").decode())


def _label_cells(predictions: Predictions, classes: Sequence[str]) -> list[str]:
    if predictions.labels.shape[1] == 1:
        names = [_cell(name) for name in classes]
        return [names[label] for label in predictions.labels[:, 0].tolist()]
    return [
        _cell("\n".join(classes[label] for label in labels if label >= 0))
        for labels in predictions.labels.tolist()
    ]


def _cell(text: str) -> str:
    """A cell as RFC 4180 has it."""
    if not any(character in text for character in ',"\n\r'):
        return text
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def read_predictions(
    path: epath.Path, classes: Sequence[str]
) -> tuple[Predictions, list[str]] | None:
    """What `write_predictions` wrote, and the examples' files; None where there is no such file.

    Raises:
      ValueError: it is no such table, or of other classes.
    """
    text = read_fresh(path)
    if text is None:
        return None
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    if not rows or tuple(rows[0]) != _COLUMNS:
        raise ValueError(f"{path} has no rows, or other columns than {', '.join(_COLUMNS)}")
    labels = {name: label for label, name in enumerate(classes)}
    try:
        own = [_labels(row["class"], labels) for row in rows]
        seconds = ("second",) if rows[0]["second"] else ()
        best = [[labels[row[name]] for name in ("predicted", *seconds)] for row in rows]
    except KeyError as error:
        raise ValueError(f"{path} has the class {error}, which is none of the run's") from None

    def numbers(name: str) -> NDArray[np.float32]:
        return np.array([float(row[name]) for row in rows], np.float32)

    most = max(map(len, own))
    shares = [numbers("probability"), *(numbers("second_probability") for _ in seconds)]
    predictions = Predictions(
        index=np.array([int(row["example"]) for row in rows], np.int64),
        labels=np.array([[*each, *[-1] * (most - len(each))] for each in own], np.int32),
        best=np.array(best, np.int32),
        probability=np.stack(shares, 1),
        own_probability=numbers("class_probability"),
        loss=numbers("loss"),
    )
    return predictions, [row["file"] for row in rows]


def _labels(cell: str, labels: Mapping[str, int]) -> list[int]:
    # The name of a folder may hold a line break, too.
    return [labels[cell]] if cell in labels else [labels[name] for name in cell.split("\n")]
