"""Curves of a run as SVG, whose colours follow the page they stand on.

Written by hand: for the thirty diagrams of a page Matplotlib takes 1.3 s of a core, and .5 s to
import, where all of a report at the size of ImageNet takes .5 s.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

from effnetv2_jax.outputs.report.accuracy import Calibration

WIDTH, HEIGHT = 460, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 20, 26
POINTS = 60
"""Of a curve; where there are more, neighbours are averaged: batches differ."""

Point = tuple[float, float]


class Curve(NamedTuple):
    """A line of a panel."""

    title: str
    color: int
    """Of the page's palette, from 0."""
    points: Sequence[Point]
    dots: bool = False
    """Whether each point is an evaluation, and shown as a dot."""


class Band(NamedTuple):
    """A stage on the horizontal axis."""

    start: float
    end: float
    title: str


class Panel(NamedTuple):
    """A diagram, and what its colours mean."""

    title: str
    svg: Markup
    legend: list[tuple[str, int]]


def panel(
    title: str,
    curves: Sequence[Curve],
    *,
    bands: Sequence[Band] = (),
    label: Callable[[float], str],
    x_label: Callable[[float], str],
    stairs: bool = False,
) -> Panel:
    """Draws curves over one axis.

    Args:
      title: says what is drawn, with its unit.
      bands: stages, which are shaded in turn.
      label, x_label: write a value of the axes.
      stairs: whether the values hold until the next, as those of stages do.
    """
    thin = _changes if stairs else _thinned
    curves = [curve._replace(points=thin(curve)) for curve in curves if curve.points]
    xs = [x for curve in curves for x, _ in curve.points] + [band.end for band in bands]
    ys = [y for curve in curves for _, y in curve.points]
    low, high = _span(ys)
    marks = round_numbers(low, high, 4)
    low, high = min(low, marks[0]), max(high, marks[-1])
    right = max(xs, default=1.0) or 1.0

    def x_of(x: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * x / right

    def y_of(y: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (y - low) / (high - low)

    parts = [_open(title)]
    for number, band in enumerate(bands):
        start, end = x_of(band.start), x_of(band.end)
        parts.append(
            f'<rect class="band{number % 2}" x="{start:.1f}" y="{_TOP}" width="{end - start:.1f}" '
            f'height="{HEIGHT - _TOP - _BOTTOM}"/>'
        )
        if end - start > 6 * len(band.title):
            middle = (start + end) / 2
            parts.append(svg_text(middle, _TOP - 6, band.title, "middle", "faint"))
    for tick in marks:
        y = y_of(tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(svg_text(_LEFT - 6, y + 3.5, label(tick), "end"))
    for tick in round_numbers(0, right, 5):
        if tick <= right * 1.001:
            parts.append(svg_text(x_of(tick), HEIGHT - 9, x_label(tick), "middle"))
    for curve in curves:
        places = [(x_of(x), y_of(y)) for x, y in curve.points]
        path = _stairs(places) if stairs else "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path class="curve c{curve.color}" d="M{path}"/>')
        if curve.dots:
            for (x, y), (at, value) in zip(places, curve.points, strict=True):
                said = escape(f"{curve.title} {label(value)} at {x_label(at)}")
                parts.append(
                    f'<circle class="dot c{curve.color}" cx="{x:.1f}" cy="{y:.1f}" r="3">'
                    f"<title>{said}</title></circle>"
                )
    parts.append("</svg>")
    legend = [(curve.title, curve.color) for curve in curves]
    return Panel(title, Markup("".join(parts)), legend)


def reliability(found: Calibration) -> Markup:
    """Accuracy over the predicted probability, with the number of pictures of each bin."""
    size, gap = 320, 34
    inner = size - 2 * gap

    def place(share: float) -> float:
        return gap + inner * share

    parts = [
        f'<svg class="chart square" viewBox="0 0 {size} {size}" role="img">',
        "<title>accuracy over predicted probability</title>",
    ]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        y = size - place(tick)
        parts.append(f'<path class="grid" d="M{gap} {y:.1f}H{size - gap}"/>')
        parts.append(svg_text(gap - 5, y + 3.5, f"{tick:.0%}", "end"))
        parts.append(svg_text(place(tick), size - gap + 15, f"{tick:.0%}", "middle"))
    most = max((each.pictures for each in found.bins), default=1)
    for each in found.bins:
        x, width = place(each.low) + 1, inner * (each.high - each.low) - 2
        height = inner * each.accuracy
        share = each.pictures / most
        said = escape(
            f"{each.low:.0%} to {each.high:.0%}: {each.pictures:,} pictures, predicted "
            f"{each.probability:.1%}, right {each.accuracy:.1%}"
        )
        parts.append(
            f'<rect class="bar" style="opacity:{0.25 + 0.75 * math.sqrt(share):.2f}" '
            f'x="{x:.1f}" y="{size - gap - height:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}"><title>{said}</title></rect>'
            f'<circle class="dot c1" cx="{place(each.probability):.1f}" '
            f'cy="{size - place(each.accuracy):.1f}" r="2.5"/>'
        )
    parts.append(
        f'<path class="ideal" d="M{gap} {size - gap}L{size - gap} {gap}"/>'
        + svg_text(size / 2, size - 4, "predicted probability", "middle", "faint")
        + "</svg>"
    )
    return Markup("".join(parts))


def bars(rows: Sequence[tuple[str, Mapping[str, int]]], names: Sequence[str]) -> Markup:
    """Horizontal bars, those of a row above each other.

    Args:
      rows: what a row is called, and its numbers by name.
      names: of the numbers, in the order of their colours.
    """
    step = 8 + 11 * len(names)
    width, left, right = 460, 150, 50
    most = max((count for _, counts in rows for count in counts.values()), default=1) or 1
    height = step * len(rows) + 6
    parts = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img">']
    for index, (title, counts) in enumerate(rows):
        top = index * step + 6
        shown = title if len(title) < 24 else f"{title[:22]}…"
        parts.append(svg_text(left - 8, top + step / 2, shown, "end"))
        for line, name in enumerate(names):
            count = counts.get(name, 0)
            length = (width - left - right) * count / most
            y = top + 11 * line
            said = escape(f"{title}: {count:,} {name}")
            parts.append(
                f'<rect class="fill c{line}" x="{left}" y="{y}" width="{length:.1f}" height="9" '
                f'rx="1.5"><title>{said}</title></rect>'
            )
            parts.append(svg_text(left + length + 5, y + 8, f"{count:,}", "start", "faint"))
    parts.append("</svg>")
    return Markup("".join(parts))


def _open(title: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<title>{escape(title)}</title>"
    )


def svg_text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    """A word in a diagram.

    Args:
      anchor: `start`, `middle` or `end`: which part of it is at x.
      kind: its class in the page's style.
    """
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _stairs(places: Sequence[Point]) -> str:
    (x, y), *others = places
    return f"{x:.1f} {y:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in others)


def _changes(curve: Curve) -> list[Point]:
    """The points at which a curve has another value than before, and its last one."""
    pairs = zip([None, *curve.points], curve.points)
    kept = [point for before, point in pairs if before is None or before[1] != point[1]]
    return [*kept, curve.points[-1]]


def _thinned(curve: Curve) -> list[Point]:
    points = np.array(curve.points, float)
    if len(points) <= POINTS or curve.dots:
        return [(float(x), float(y)) for x, y in points]
    pieces = np.array_split(points, POINTS)
    return [(float(piece[:, 0].mean()), float(piece[:, 1].mean())) for piece in pieces]


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high - low < 1e-12:
        return (0.0, high * 1.25) if high > 0 else (low, low + 1.0)
    # From 0 where that costs little of the height.
    return (0.0 if 0 < low < (high - low) else low), high


def round_numbers(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers from below `low` to above `high`."""
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]
