"""What the report of a search draws, as SVG in the colours of the page."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from effnetv2_jax.models.efficientnet.config import EfficientNetConfig
from effnetv2_jax.outputs.report.curves import Panel, Point, round_numbers, svg_text

COLORS = 6
"""Of the page's palette."""
OPERATORS = {"fused": ("Fused-MBConv", 1), "mbconv": ("MBConv", 3), "edge": ("edge", 2)}
"""What an operator is called, and its colour."""
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 460, 250, 52, 14, 14, 40


class Dot(NamedTuple):
    """A trial in a diagram."""

    x: float
    y: float
    said: str
    """What is shown where the mouse rests on it."""


class Dots(NamedTuple):
    """Trials of a kind."""

    title: str
    color: int
    dots: Sequence[Dot]
    size: float = 3.0


class Row(NamedTuple):
    """How often values of a choice occur, in a bar."""

    title: str
    shares: Sequence[tuple[str, float]]
    """Of each value, in the order of the choice: they sum to 1."""


def scatter(
    title: str,
    kinds: Sequence[Dots],
    *,
    line: Sequence[Point] = (),
    line_title: str = "",
    x_title: str,
    x_label: Callable[[float], str],
    y_label: Callable[[float], str],
) -> Panel:
    """Draws trials as dots over two axes.

    Args:
      title: says what is upwards.
      line: stairs through points, from the left, such as the best so far.
      x_title: says what is to the right.
      x_label, y_label: write a value of an axis.
    """
    dots = [dot for kind in kinds for dot in kind.dots]
    x_ticks, y_ticks = _axis([dot.x for dot in dots]), _axis([dot.y for dot in dots])

    def x_of(x: float) -> float:
        share = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * share

    def y_of(y: float) -> float:
        share = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(title)}, {escape(x_title)}</title>",
    ]
    for tick in y_ticks:
        y = y_of(tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(svg_text(_LEFT - 6, y + 3.5, y_label(tick), "end"))
    for tick in x_ticks:
        parts.append(svg_text(x_of(tick), _HEIGHT - _BOTTOM + 15, x_label(tick), "middle"))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(svg_text(middle, _HEIGHT - 8, x_title, "middle", "faint"))
    if line:
        (x, y), *others = [(x_of(x), y_of(y)) for x, y in line]
        path = f"{x:.1f} {y:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in others)
        parts.append(f'<path class="curve c2" d="M{path}"/>')
    for kind in kinds:
        parts += [
            f'<circle class="dot c{kind.color}" cx="{x_of(dot.x):.1f}" cy="{y_of(dot.y):.1f}" '
            f'r="{kind.size:g}"><title>{escape(dot.said)}</title></circle>'
            for dot in kind.dots
        ]
    parts.append("</svg>")
    legend = [(kind.title, kind.color) for kind in kinds if kind.dots]
    legend += [(line_title, 2)] if line else []
    return Panel(title, Markup("".join(parts)), legend)


def shares(pairs: Sequence[tuple[str, Row, Row]]) -> Markup:
    """Bars whose parts are the shares of values, two below each other for each choice.

    Args:
      pairs: what a pair is called, then its two bars.
    """
    width, left, bar, gap = 460, 128, 15, 12
    step = 2 * bar + gap + 2
    height = step * len(pairs)
    parts = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img">']
    for index, (title, *bars) in enumerate(pairs):
        top = index * step
        parts.append(svg_text(2, top + bar + 4, title, "start", "name"))
        for line, row in enumerate(bars):
            y = top + line * (bar + 2)
            parts.append(svg_text(left - 6, y + bar - 4, row.title, "end", "faint"))
            start = float(left)
            for place, (value, share) in enumerate(row.shares):
                # An operator's colour is that of the network's picture.
                color = OPERATORS[value][1] if value in OPERATORS else place % COLORS
                long = (width - left) * share
                if long <= 0:
                    continue
                said = escape(f"{title}: {value} in {share:.0%} ({row.title})")
                parts.append(
                    f'<rect class="fill c{color} {"" if line == 0 else "pale"}" '
                    f'x="{start:.1f}" y="{y}" width="{max(0.0, long - 1):.1f}" height="{bar}" '
                    f'rx="2"><title>{said}</title></rect>'
                )
                if long > 7 * len(value) + 6:
                    middle = start + long / 2
                    parts.append(svg_text(middle, y + bar - 4, value, "middle", "inside"))
                start += long
    parts.append("</svg>")
    return Markup("".join(parts))


def network(model: EfficientNetConfig, image_size: int) -> Markup:
    """A network's table as a picture: every block a bar, as high as its channels are many.

    Args:
      model: its table as it is built.
      image_size: of the images, in pixels.
    """
    rows = model.stages or ()
    blocks = sum(row.repeats for row in rows)
    captions, caption, bar = 92, 122, 26 if blocks <= 24 else 14 if blocks <= 48 else 8
    widths = [max(caption, bar * (row.repeats + 1)) for row in rows]
    width = sum(widths)
    tallest = max((row.outputs for row in rows), default=1)
    full = 120
    height = full + captions
    parts = [f'<svg class="chart whole" viewBox="0 0 {width} {height}" role="img">']
    parts.append("<title>the network's stages from left to right</title>")
    starts, size = [0, *itertools.accumulate(widths)], -(-image_size // 2)
    for index, (row, start, wide) in enumerate(zip(rows, starts, widths)):
        size = -(-size // row.stride)
        name, color = OPERATORS[row.operator]
        long = 14 + (full - 14) * math.sqrt(row.outputs / tallest)
        middle = start + wide / 2
        first = middle - bar * row.repeats / 2
        for block in range(row.repeats):
            x = first + bar * block
            parts.append(
                f'<rect class="fill c{color} {"dashed" if row.kernel > 3 else ""}" x="{x:.1f}" '
                f'y="{full - long:.1f}" width="{bar - 3}" height="{long:.1f}" '
                'rx="2"/>'
            )
        captions_of = (
            f"stage {index + 1}: {row.repeats} x",
            name,
            f"{row.kernel}x{row.kernel}, expand {row.expand}",
            f"{row.outputs} channels",
            f"{size} x {size} px" + (f", SE {row.se_ratio:g}" if row.se_ratio else ""),
        )
        for line, said in enumerate(captions_of):
            kind = "name" if line == 0 else "tick"
            parts.append(svg_text(middle, full + 18 + 15 * line, said, "middle", kind))
    parts.append("</svg>")
    return Markup("".join(parts))


def front(points: Sequence[Point]) -> list[int]:
    """The points that no other one beats, from the left: less of x, or more of y.

    Returns:
      Their places in `points`. Of equal ones the first.
    """
    order = sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1]))
    highest = itertools.accumulate((points[place][1] for place in order), max, initial=-math.inf)
    return [place for place, before in zip(order, highest) if points[place][1] > before]


def counted(values: Sequence[str], labels: Sequence[str]) -> list[tuple[str, float]]:
    """The share of every label among values, in the order of the labels."""
    counts: Mapping[str, int] = {label: values.count(label) for label in labels}
    total = max(1, sum(counts.values()))
    return [(label, count / total) for label, count in counts.items()]


def _axis(values: Sequence[float]) -> list[float]:
    """Round numbers from below the least value to above the largest, at least two."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high - low < 1e-9:
        low, high = low - 0.5 * abs(low) - 1e-3, high + 0.5 * abs(high) + 1e-3
    return round_numbers(low, high, 5)
