"""The curves of a run: accuracy, losses, and what its stages and schedule set."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from effnetv2_jax.outputs.progress import clock
from effnetv2_jax.outputs.report.curves import Band, Curve, Panel, Point, panel
from effnetv2_jax.outputs.report.gather import RunFiles, mapped

_SINGLE = 3
"""The colour of a curve that is alone."""

Labels = Callable[[float], str]


def percent(value: float) -> str:
    """A share, as axes show it."""
    return f"{value:.0%}"


def number(value: float) -> str:
    """A number, as axes show it."""
    if value == 0:
        return "0"
    return f"{value:.0e}".replace("e-0", "e-") if abs(value) < 0.001 else f"{value:.4g}"


class Axis(NamedTuple):
    """What curves are drawn over."""

    name: str
    places: Callable[[Sequence[float]], list[float]]
    """Of steps."""
    label: Labels


def axes(run: RunFiles) -> list[Axis]:
    """Steps, and epochs and time where they are known."""
    found = [Axis("step", list, lambda x: f"{x:,.0f}")]
    if pairs := run.epochs_at():
        found.append(Axis("epoch", lambda steps: mapped(steps, pairs), lambda x: f"{x:g}"))
    if times := run.seconds_at():
        found.append(Axis("time", lambda steps: mapped(steps, times), clock))
    return found


class _Line(NamedTuple):
    title: str
    kind: str
    """`train` or `eval`."""
    name: str


def panels(run: RunFiles, axis: Axis) -> list[Panel]:
    """The curves that a run has, over an axis."""
    bands = _bands(run, axis)
    found = []
    for title, label, lines, holds in (
        ("accuracy", percent, _evaluated("top1", "training batches"), False),
        ("mean average precision", percent, _evaluated("map", ""), False),
        ("loss", number, _evaluated("loss", "training, with augmentation"), False),
        ("learning rate", number, [_Line("learning rate", "train", "learning_rate")], False),
        ("image size in pixels", number, [_Line("image size", "train", "image_size")], True),
        *((title, number, [_Line(title, "train", name)], True) for title, name in _OF_STAGES),
        ("images a second", number, [_Line("images/s", "train", "images_per_second")], False),
    ):
        drawn = [
            Curve(line.title, place if len(lines) > 1 else _SINGLE, points, line.kind == "eval")
            for place, line in enumerate(lines)
            if (points := points_of(run, axis, line.kind, line.name))
        ]
        # What no stage uses would be a line at 0.
        if any(y for curve in drawn for _, y in curve.points):
            found.append(
                panel(title, drawn, bands=bands, label=label, x_label=axis.label, stairs=holds)
            )
    return found


_OF_STAGES = (
    ("dropout", "dropout_rate"),
    ("stochastic depth", "stochastic_depth_rate"),
    ("RandAugment magnitude", "randaugment_magnitude"),
    ("mixup alpha", "mixup_alpha"),
    ("CutMix alpha", "cutmix_alpha"),
)


def _evaluated(name: str, training: str) -> list[_Line]:
    return [
        _Line(training, "train", name),
        _Line("held-out, raw weights", "eval", f"raw_{name}"),
        _Line("held-out, averaged weights", "eval", f"ema_{name}"),
    ]


def points_of(run: RunFiles, axis: Axis, kind: str, name: str) -> list[Point]:
    """The points of a curve, those left out where it is not finite."""
    rows = [
        (float(row["step"]), float(row[name]))
        for row in (run.training if kind == "train" else run.evaluations)
        if isinstance(row.get(name), int | float)
    ]
    places = axis.places([step for step, _ in rows])
    return list(zip(places, (value for _, value in rows), strict=True))


def _bands(run: RunFiles, axis: Axis) -> list[Band]:
    if run.facts is None:
        return []
    done = run.steps_done
    begun = [row for row in run.facts.plan if row.first_step < done]
    starts = axis.places([row.first_step for row in begun])
    ends = axis.places([min(row.end_step, done) for row in begun])
    return [
        Band(start, end, f"{row.image_size} px")
        for start, end, row in zip(starts, ends, begun, strict=True)
    ]
