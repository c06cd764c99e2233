"""What the report of a search says, ready for its template."""

import collections
import dataclasses
import datetime
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath
from markupsafe import Markup

from effnetv2_jax.models.efficientnet.config import EfficientNetConfig
from effnetv2_jax.nas.architecture import canonical
from effnetv2_jax.nas.candidate import with_settings
from effnetv2_jax.nas.config import Search
from effnetv2_jax.nas.cost.kept import MEASURED
from effnetv2_jax.nas.records import SEARCH, Proposal, Result, StudyError, read_json, read_trials
from effnetv2_jax.nas.report.pictures import (
    Dot,
    Dots,
    Row,
    counted,
    front,
    network,
    scatter,
    shares,
)
from effnetv2_jax.nas.space import Choice, size
from effnetv2_jax.outputs.report.curves import Panel
from effnetv2_jax.outputs.workdir import read_winner

BEST_SHARE = 0.1
"""Of the trials, whose choices are compared with those of all."""
LISTED = 1000
"""Trials in the table: the best ones."""
_STAGE = re.compile(r"model\.stages\[(\d+)\]\.(\w+)")


class Comparison(NamedTuple):
    """What the best trials chose for a field, beside all."""

    title: str
    bars: Markup


class Source(NamedTuple):
    """Where S is from."""

    title: str
    trials: int


class Listed(NamedTuple):
    """A trial in the table."""

    result: Result
    picks: str
    on_front: bool


class Winner(NamedTuple):
    """The network that won."""

    trial: int
    result: Mapping[str, Any]
    workdir: str
    row: str
    settings: list[tuple[str, str]]
    picture: Markup | None
    seeds: list[float]
    """Rewards in the finals; empty without finals."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """Of the page."""

    study: str
    written: str
    search: Search
    space_size: int
    proposed: int
    duplicates: int
    done: int
    running: int
    complete: int
    pruned: list[Result]
    winner: Winner | None
    progress: Panel | None
    pareto: list[Panel]
    best_tenth: int
    comparisons: list[Comparison]
    sources: list[Source]
    spread: tuple[float, float, int] | None
    """Of S that was measured: the median and the largest spread, and of how many networks."""
    listed: list[Listed]


def contents(study: epath.Path) -> Contents:
    """Reads a study.

    Raises:
      StudyError: there is none, or its files make no sense.
      ConfigError: its search makes no sense.
    """
    if not (study / SEARCH).exists():
        raise StudyError(f"{study} is no study: it has no {SEARCH}")
    search = Search.from_json(read_json(study / SEARCH))
    proposals, results = read_trials(study)
    complete = sorted(
        (result for result in results.values() if result.complete),
        key=lambda result: (-(result.reward or 0.0), result.number),
    )
    count = math.ceil(BEST_SHARE * len(complete))
    best = complete[:count]
    by_number = {proposal.number: proposal for proposal in proposals}
    trained = [proposal for proposal in proposals if proposal.duplicate_of is None]
    on_front = _on_front(complete)
    return Contents(
        study=str(study),
        written=datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        search=search,
        space_size=size(search.space),
        proposed=len(proposals),
        duplicates=len(proposals) - len(trained),
        done=len(results),
        running=len(trained) - len(results),
        complete=len(complete),
        pruned=[result for result in results.values() if not result.complete],
        winner=_winner(study, search),
        progress=_progress(results) if complete else None,
        pareto=_pareto(complete),
        best_tenth=count,
        comparisons=_comparisons(search, [by_number[result.number] for result in best], trained),
        sources=_sources(results.values()),
        spread=_spread(study),
        listed=[
            Listed(result, _spelt(by_number[result.number]), result.number in on_front)
            for result in complete[:LISTED]
        ],
    )


def _winner(study: epath.Path, search: Search) -> Winner | None:
    found = read_winner(study)
    if found is None:
        return None
    model = canonical(with_settings(search.experiment, found["settings"]).model)
    picture = None
    if isinstance(model, EfficientNetConfig):
        picture = network(model, search.experiment.stages[-1].image_size)
    others = [
        (field, str(value))
        for field, value in found["settings"].items()
        if not _STAGE.match(field)  # The picture says it better.
    ]
    finals = found.get("finals") or {}
    return Winner(
        trial=found["trial"],
        result=found["result"],
        workdir=found["workdir"],
        row=found["row"],
        settings=others,
        picture=picture,
        seeds=list(finals.get("rewards", [])),
    )


def _said(result: Result) -> str:
    return (
        f"trial {result.number}: top-1 {result.accuracy or 0:.2%}, S {result.step_time or 0:.3g}, "
        f"{(result.parameters or 0) / 1e6:.3g} M parameters, reward {result.reward or 0:.4f}"
    )


def _progress(results: Mapping[int, Result]) -> Panel:
    """Reward over the trials, and the best so far."""
    complete = sorted(r.number for r in results.values() if r.complete)
    dots = {
        number: Dot(number, results[number].reward or 0.0, _said(results[number]))
        for number in complete
    }
    best, line = -math.inf, []
    for number, dot in dots.items():
        if dot.y > best:
            best = dot.y
            line.append((float(number), best))
    line.append((float(complete[-1]), best))
    return scatter(
        "reward",
        [Dots("trials", 0, list(dots.values()), 2.6)],
        line=line,
        line_title="best so far",
        x_title="trial",
        x_label=lambda x: f"{x:g}" if x == int(x) else "",
        y_label=lambda y: f"{y:.3g}",
    )


def _on_front(complete: Sequence[Result]) -> set[int]:
    """The numbers of the trials that no other one beats in accuracy, S and P together."""
    # Of each, more is better.
    objectives = {
        result.number: (
            result.accuracy or 0.0,
            -(result.step_time or 0.0),
            -float(result.parameters or 0),
        )
        for result in complete
    }

    def beaten(mine: tuple[float, ...]) -> bool:
        return any(
            theirs != mine and all(a >= b for a, b in zip(theirs, mine))
            for theirs in objectives.values()
        )

    return {number for number, mine in objectives.items() if not beaten(mine)}


def _pareto(complete: Sequence[Result]) -> list[Panel]:
    """Accuracy against S and against P, with what no other trial beats.

    Args:
      complete: from the highest reward on.
    """
    found = []
    for title, label, of in (
        ("S, relative to the reference", lambda x: f"{x:.3g}", lambda r: r.step_time or 0.0),
        ("million parameters", lambda x: f"{x:.3g}", lambda r: (r.parameters or 0) / 1e6),
    ):
        points = [(of(result), result.accuracy or 0.0) for result in complete]
        if len({x for x, _ in points}) < 2:
            continue
        ahead = front(points)
        dots = [Dot(x, y, _said(result)) for (x, y), result in zip(points, complete, strict=True)]
        kinds = [
            Dots("others", 0, [d for place, d in enumerate(dots) if place not in set(ahead)]),
            Dots("beaten by none", 2, [dots[place] for place in ahead], 4.0),
            Dots("highest reward", 1, dots[:1], 5.5),
        ]
        found.append(
            scatter(
                "accuracy",
                kinds,
                line=[points[place] for place in ahead],
                line_title="front",
                x_title=title,
                x_label=label,
                y_label=lambda y: f"{y:.1%}",
            )
        )
    return found


def _comparisons(
    search: Search, best: Sequence[Proposal], every: Sequence[Proposal]
) -> list[Comparison]:
    """What the best chose beside all: fields of the stages together, others each by itself."""
    if not best:
        return []
    fields: dict[str, list[tuple[str, Choice]]] = collections.defaultdict(list)
    for choice in search.space:
        match = _STAGE.fullmatch(choice.name)
        if match:
            fields[match[2]].append((f"stage {int(match[1]) + 1}", choice))
        else:
            fields["other fields"].append((choice.name, choice))
    return [Comparison(title, _bars(pairs, best, every)) for title, pairs in fields.items()]


def _bars(
    pairs: Sequence[tuple[str, Choice]], best: Sequence[Proposal], every: Sequence[Proposal]
) -> Markup:
    def row(title: str, choice: Choice, proposals: Sequence[Proposal]) -> Row:
        values = [str(proposal.picks[choice.name]) for proposal in proposals]
        return Row(title, counted(values, [str(label) for label in choice.labels]))

    return shares(
        [(title, row("best", choice, best), row("all", choice, every)) for title, choice in pairs]
    )


def _sources(results: Iterable[Result]) -> list[Source]:
    counts = collections.Counter(
        result.step_time_source for result in results if result.step_time is not None
    )
    return [Source(title or "not recorded", count) for title, count in counts.most_common()]


def _spread(study: epath.Path) -> tuple[float, float, int] | None:
    folder = study / MEASURED
    records = [read_json(path) for path in folder.glob("*.json")] if folder.exists() else []
    spreads = [record["ratio"]["spread"] for record in records]
    return (statistics.median(spreads), max(spreads), len(spreads)) if spreads else None


def _spelt(proposal: Proposal) -> str:
    """What was chosen, in short: of each stage operator, kernel, expansion and layers."""
    stages: dict[int, dict[str, str]] = collections.defaultdict(dict)
    others = []
    for name, label in proposal.picks.items():
        match = _STAGE.fullmatch(name)
        if match and match[2] in ("operator", *_SHORT):
            stages[int(match[1])][match[2]] = str(label)
        else:
            others.append(f"{name}={label}")
    rows = []
    for _, chosen in sorted(stages.items()):
        operator = chosen.pop("operator", "")
        fields = sorted(chosen, key=lambda field: list(_SHORT).index(field))
        parts = [f"{_SHORT[field]}{chosen[field]}" for field in fields]
        rows.append(" ".join([operator, *parts]).strip())
    return " | ".join([*rows, *others])


_SHORT = {"kernel": "k", "expand": "e", "repeats": "x", "se_ratio": "se"}
