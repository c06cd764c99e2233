"""What a report says of a run, ready for its templates."""

import dataclasses
import datetime
import shlex
import statistics
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from markupsafe import Markup

from effnetv2_jax.outputs.report import accuracy, curves
from effnetv2_jax.outputs.report.accuracy import Calibration, ClassRow, Confusion
from effnetv2_jax.outputs.report.curves import Panel
from effnetv2_jax.outputs.report.facts import Split
from effnetv2_jax.outputs.report.gather import Row, RunFiles
from effnetv2_jax.outputs.report.panels import Axis, axes, panels
from effnetv2_jax.outputs.report.warnings import warnings

PICTURES = 24
"""Shown with the highest loss; half as many of the least certain ones."""
MATRIX = 30
"""Classes up to which the whole confusion matrix and the pictures of each class are shown."""
CONFUSIONS = 40
ROWS = 1000
"""Of the table of classes."""
LISTED = 200
"""Files of evaluation that the page names; the others are in the table beside it."""


class Verdict(NamedTuple):
    """How good the newest evaluation is; shares in [0, 1]."""

    accuracy: float
    low: float
    high: float
    right: int
    pictures: int
    largest: str
    """The class with the most pictures; empty where that is not known."""
    largest_share: float


class Judged(NamedTuple):
    """A picture of evaluation, and what is made of it."""

    file: str
    source: str
    link: str
    label: str
    predicted: str
    probability: float
    loss: float
    right: bool


class Sizes(NamedTuple):
    """Widths and heights of some pictures: smallest, median, largest."""

    pictures: int
    width: tuple[int, int, int]
    height: tuple[int, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classes:
    """What predictions say of classes."""

    rows: list[ClassRow]
    """The worst first, some of them."""
    mean: tuple[float, float, float]
    """Precision, recall and F1 over all classes, each counted once."""
    matrix: list[list[int]] | None
    """Pictures by class and by prediction; None where there are too many classes."""
    support: list[int]
    confusions: list[Confusion]
    """The largest."""
    calibration: Calibration
    diagram: Markup
    highest: list[Judged]
    """Of the highest loss."""
    least: list[Judged]
    """Right, and least certain."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """All that is on the page."""

    run: RunFiles
    verdict: Verdict | None
    latest: Row
    warnings: list[str]
    commands: list[tuple[str, str]]
    """What they are for, and what to type."""
    curves: list[tuple[Axis, list[Panel]]]
    counts: Markup
    """Bars of the pictures of each class; empty where there are too many classes or none."""
    sizes: dict[str, Sizes]
    """By split."""
    listed: list[str]
    classes: Classes | None
    speeds: list[float | None]
    """Images a second in each stage."""
    shares: list[tuple[str, float, float]]
    """What time went to, its seconds and its share."""
    start: Row
    """What the newest start was made with."""
    happened: list[Row]
    """Events but starts, the newest last."""
    starts: int
    written: str

    @property
    def model(self) -> str:
        """Its name."""
        return str(self.run.fields.get("model.name", ""))


def contents(run: RunFiles) -> Contents:
    """What a report says of a run."""
    facts, spent = run.facts, run.spent
    dtype = str(run.fields.get("model.dtype", ""))
    key = f"{run.judged_by}_{run.metric}"
    evaluated = [(row["step"], row[key]) for row in run.evaluations if row.get(key) is not None]
    starts = [event for event in run.events if event.get("event") == "start"]
    total = spent.get("total") or 1.0
    counts = {}
    if facts is not None and len(run.classes) <= MATRIX:
        counts = {name: s.class_counts for name, s in facts.splits.items() if s.class_counts}
    return Contents(
        run=run,
        verdict=_verdict(run),
        latest=run.evaluations[-1] if run.evaluations else {},
        warnings=list(warnings(facts, run.classes, dtype, evaluated, run.total_steps)),
        commands=_commands(run),
        curves=[(axis, panels(run, axis)) for axis in axes(run)],
        counts=_counts(counts, run.classes),
        sizes=_sizes(facts.splits if facts else {}),
        listed=run.files[:LISTED],
        classes=_classes(run),
        speeds=_speeds(run),
        shares=[
            (name, seconds, seconds / total)
            for name, seconds in sorted(spent.items(), key=lambda item: -item[1])
            if name != "total"
        ],
        start=starts[-1] if starts else {},
        happened=[event for event in run.events if event.get("event") != "start"],
        starts=len(starts),
        written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )


def _verdict(run: RunFiles) -> Verdict | None:
    largest, share = "", 0.0
    if run.predictions is not None and len(run.predictions):
        right, count = int(run.predictions.right.sum()), len(run.predictions)
        ((label, most),) = Counter(run.predictions.label.tolist()).most_common(1)
        largest, share = run.classes[label], most / count
    elif run.evaluations:
        row = run.evaluations[-1]
        count = int(row.get("examples") or 0)
        right = round((row.get(f"{run.judged_by}_top1") or 0.0) * count)
    else:
        return None
    low, high = accuracy.interval(right, count)
    return Verdict(right / max(count, 1), low, high, right, count, largest, share)


def _commands(run: RunFiles) -> list[tuple[str, str]]:
    workdir = str(run.workdir)
    quoted = shlex.quote(workdir)
    found = []
    if not run.finished:
        config = run.start_of("config_file") or "FILE"
        again = f"python -m effnetv2_jax.main --config={shlex.quote(config)} --workdir={quoted}"
        found.append(("continue", again))
    found.append(
        ("classify pictures", f"python -m effnetv2_jax.predict --weights={quoted} PICTURES/")
    )
    if run.best is not None and run.best["step"] != run.steps_done:
        evaluates = "python -m effnetv2_jax.main --mode=eval"
        best = shlex.quote(f"{workdir}@best")
        found.append(("evaluate the best checkpoint", f"{evaluates} --workdir={best}"))
    found.append(("write this page anew", f"python -m effnetv2_jax.report {quoted}"))
    return found


def _counts(counts: Mapping[str, list[int] | None], classes: tuple[str, ...]) -> Markup:
    if not counts:
        return Markup()
    rows = [
        (name, {split: by_class[label] for split, by_class in counts.items() if by_class})
        for label, name in enumerate(classes)
    ]
    return curves.bars(rows, list(counts))


def _sizes(splits: Mapping[str, Split]) -> dict[str, Sizes]:
    found = {}
    for name, split in splits.items():
        if split.sizes:
            spans = [
                (min(lengths), int(statistics.median(lengths)), max(lengths))
                for lengths in zip(*split.sizes, strict=True)
            ]
            found[name] = Sizes(len(split.sizes), *spans)
    return found


def _classes(run: RunFiles) -> Classes | None:
    predictions, names = run.predictions, run.classes
    if predictions is None or not len(predictions):
        return None
    cells = accuracy.confusions(predictions, len(names))
    rows = accuracy.class_rows(cells, names)
    calibrated = accuracy.calibration(predictions)
    highest, least = accuracy.worth_a_look(predictions, PICTURES)
    matrix = None
    if len(names) <= MATRIX:
        matrix = [[0] * len(names) for _ in names]
        for cell in cells:
            matrix[cell.label][cell.predicted] = cell.pictures
    precision, recall, f1 = (
        statistics.fmean(getattr(row, name) for row in rows)
        for name in ("precision", "recall", "f1")
    )
    return Classes(
        rows=sorted(rows, key=lambda row: row.f1)[:ROWS],
        mean=(precision, recall, f1),
        matrix=matrix,
        support=[row.support for row in rows],
        confusions=[cell for cell in cells if cell.label != cell.predicted][:CONFUSIONS],
        calibration=calibrated,
        diagram=curves.reliability(calibrated),
        highest=[_judged(run, row) for row in highest],
        least=[_judged(run, row) for row in least[: PICTURES // 2]],
    )


def _judged(run: RunFiles, row: int) -> Judged:
    predictions = run.predictions
    assert predictions is not None
    thumbnails = run.facts.thumbnails if run.facts is not None else {}
    thumbnail = thumbnails.get(int(predictions.index[row]))
    return Judged(
        file=run.files[row],
        source=thumbnail.source if thumbnail else "",
        link=thumbnail.link if thumbnail else "",
        label=run.classes[int(predictions.label[row])],
        predicted=run.classes[int(predictions.best[row, 0])],
        probability=float(predictions.probability[row, 0]),
        loss=float(predictions.loss[row]),
        right=bool(predictions.right[row]),
    )


def _speeds(run: RunFiles) -> list[float | None]:
    """The median of the rows of each stage: the first ones may wait for what is compiled."""
    found: list[float | None] = []
    for stage in range(len(run.facts.plan) if run.facts else 0):
        rates = [
            row["images_per_second"]
            for row in run.training
            if row.get("stage") == stage and row.get("images_per_second")
        ]
        found.append(statistics.median(rates) if rates else None)
    return found
