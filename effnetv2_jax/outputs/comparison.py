"""In what two runs differ: how they were made, what happened to them, what came out."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from etils import epath

from effnetv2_jax.config.differences import flatten, may_differ
from effnetv2_jax.outputs.table import align
from effnetv2_jax.outputs.workdir import (
    Checkpoint,
    WorkdirError,
    read_class_names,
    read_config,
    read_data_fingerprint,
    split_checkpoint,
    workdir_path,
)
from effnetv2_jax.outputs.writers import EVENTS, METRICS, read_log

Subject = Literal[
    "config", "classes", "data", "starts", "events", "training", "evaluations", "parameters"
]

_RESULTS = ("training", "evaluations", "parameters")
_HEADINGS: dict[Subject, str] = {
    "config": "config (* may differ between the starts of one run)",
    "classes": "classes",
    "data": "fingerprints of the data",
    "starts": "starts: versions, devices, source",
    "events": "events, and the steps that were done by then",
    "training": "training metrics, each where it first differs",
    "evaluations": "evaluations",
    "parameters": "parameters at the end",
}
_NOT_COMPARED = "train/images_per_second"
_SHA256 = "params_sha256"
_LISTED = 8
_ABSENT = "absent"
_OF_EVENTS = ("time", "event", "step", "config_file", "changed")


class Difference(NamedTuple):
    """Something in which two runs differ."""

    subject: Subject
    name: str
    """Of a field, an event, a metric, ..."""
    a: str
    b: str
    note: str = ""

    @property
    def in_result(self) -> bool:
        """Whether it is in what came out, and not only in how."""
        return self.subject in _RESULTS

    def __str__(self) -> str:
        return f"{self.name}: {self.a} -> {self.b}" + (f" ({self.note})" if self.note else "")


def compare_runs(a: epath.PathLike, b: epath.PathLike) -> list[Difference]:
    """In what the runs in two working directories differ, local or `gs://`.

    Without a difference `in_result` both ended with the same parameters, and no metric that both
    logged at the same step differs, images per second left out.

    Args:
      a, b: the directories. Where one is written `RUN@best`, `RUN@last` or `RUN@STEP`, both are
        compared as far as the checkpoint that is named, or the newest, and by its parameters.

    Raises:
      WorkdirError: there is no run in one of them; the message names it.
      CheckpointError: there is no such checkpoint.
    """
    return _differences(*_read_both(a, b))


def comparison(a: epath.PathLike, b: epath.PathLike) -> tuple[str, bool]:
    """The comparison as a page of text, and whether what came out differs.

    Args:
      a, b: as for `compare_runs`.

    Raises:
      WorkdirError: there is no run in one of them; the message names it.
      CheckpointError: there is no such checkpoint.
    """
    one, other = _read_both(a, b)
    differences = _differences(one, other)
    text = "\n".join(_report(one, other, differences))
    return text, any(difference.in_result for difference in differences)


class _Record(NamedTuple):
    """What a working directory says of its run."""

    path: epath.Path
    config: Mapping[str, Any]
    classes: tuple[str, ...]
    train_data: str | None
    events: list[dict[str, Any]]
    metrics: dict[int, dict[str, Any]]
    """By step and name."""
    sha256: str | None
    """Of the parameters at the end; None before it. Of a checkpoint's, the checksum it holds."""


def _read_both(a: epath.PathLike, b: epath.PathLike) -> tuple[_Record, _Record]:
    named = [split_checkpoint(os.fspath(workdir)) for workdir in (a, b)]
    records = [_read(path) for path, _ in named]
    if any(path != os.fspath(workdir) for (path, _), workdir in zip(named, (a, b), strict=True)):
        pairs = zip(records, named, strict=True)
        records = [_until(record, checkpoint) for record, (_, checkpoint) in pairs]
    one, other = records
    return one, other


def _until(record: _Record, checkpoint: Checkpoint) -> _Record:
    """What a run was when it had come to a checkpoint."""
    # Imported here: Orbax takes a second, and only checkpoints need it.
    from effnetv2_jax.outputs.checkpoints import Checkpoints

    with Checkpoints(record.path / "checkpoints", None) as checkpoints:
        step = checkpoints.find(checkpoint)
        checksum = checkpoints.checksum(step, "params")
    return record._replace(
        path=epath.Path(f"{os.fspath(record.path)}@{step}"),
        events=[event for event in record.events if event.get("step", 0) <= step],
        metrics={at: values for at, values in record.metrics.items() if at <= step},
        sha256=None if checksum is None else f"CRC-32C {checksum:08x}",
    )


def _read(workdir: epath.PathLike) -> _Record:
    path = workdir_path(workdir)
    try:
        if not path.is_dir():
            raise WorkdirError(f"there is no directory {path}; name the --workdir of two runs")
        lines = read_log(path / METRICS)
        metrics: dict[int, dict[str, Any]] = {}
        for line in lines:
            metrics.setdefault(line["step"], {}).update(line)
        return _Record(
            path=path,
            config=dict(flatten(read_config(path))),
            classes=read_class_names(path),
            train_data=read_data_fingerprint(path),
            events=read_log(path / EVENTS),
            metrics=metrics,
            sha256=next((line[_SHA256] for line in reversed(lines) if _SHA256 in line), None),
        )
    except OSError as error:
        raise WorkdirError(f"cannot read the run in {path}: {error}") from error
    except (KeyError, TypeError) as error:
        raise WorkdirError(f"{path / METRICS} makes no sense: {error!r}") from error


def _differences(a: _Record, b: _Record) -> list[Difference]:
    return [
        *_config(a, b),
        *_classes(a, b),
        *_unequal("data", _data(a), _data(b)),
        *_made_with(a, b),
        *_unequal("events", _events(a), _events(b)),
        *_metrics("training", "train/", a, b),
        *_metrics("evaluations", "eval/", a, b),
        *_parameters(a, b),
    ]


def _unequal(subject: Subject, a: Mapping[str, str], b: Mapping[str, str]) -> Iterator[Difference]:
    for name in dict.fromkeys((*a, *b)):
        if a.get(name) != b.get(name):
            yield Difference(subject, name, a.get(name, _ABSENT), b.get(name, _ABSENT))


def _config(a: _Record, b: _Record) -> Iterator[Difference]:
    for name in sorted({*a.config, *b.config}):
        values = [repr(run.config[name]) if name in run.config else _ABSENT for run in (a, b)]
        if values[0] != values[1]:
            yield Difference("config", f"*{name}" if may_differ(name) else name, *values)


def _classes(a: _Record, b: _Record) -> Iterator[Difference]:
    if len(a.classes) != len(b.classes):
        yield Difference("classes", "number", str(len(a.classes)), str(len(b.classes)))
        return
    for index, (one, other) in enumerate(zip(a.classes, b.classes)):
        if one != other:
            yield Difference("classes", f"class {index}", repr(one), repr(other))


def _data(run: _Record) -> dict[str, str]:
    recorded = {name: text for name, text in _starts(run).items() if name.startswith("data.")}
    return recorded | ({} if run.train_data is None else {"data.train": run.train_data})


def _made_with(a: _Record, b: _Record) -> Iterator[Difference]:
    one, other = (
        {name: text for name, text in _starts(run).items() if not name.startswith("data.")}
        for run in (a, b)
    )
    if one and other:
        yield from _unequal("starts", one, other)
    elif one or other:
        recorded = ("has starts" if starts else "has none" for starts in (one, other))
        yield Difference("starts", EVENTS, *recorded)


def _starts(run: _Record) -> dict[str, str]:
    """What the first start recorded, and the last one where that is something else."""
    starts = [
        dict(flatten({name: value for name, value in event.items() if name not in _OF_EVENTS}))
        for event in run.events
        if event.get("event") == "start"
    ]
    if not starts:
        return {}
    first, last = starts[0], starts[-1]
    return {name: _then(first.get(name, _ABSENT), last.get(name, _ABSENT)) for name in first | last}


def _then(first: Any, last: Any) -> str:
    return f"{first}" if first == last else f"{first}, at the last start {last}"


def _events(run: _Record) -> dict[str, str]:
    steps: dict[str, list[str]] = {}
    for event in run.events:
        steps.setdefault(str(event.get("event")), []).append(str(event.get("step")))
    return {
        name: f"{len(at)} ({', '.join(at[:_LISTED])}{', ...' if len(at) > _LISTED else ''})"
        for name, at in steps.items()
    }


def _metrics(subject: Subject, kind: str, a: _Record, b: _Record) -> Iterator[Difference]:
    """The first difference in each metric, the earliest first."""
    found: set[str] = set()
    for step in _common_steps(kind, a, b):
        one, other = _of_kind(a, step, kind), _of_kind(b, step, kind)
        for name in sorted({*one, *other} - found):
            before, after = one.get(name, _ABSENT), other.get(name, _ABSENT)
            if before != after:
                found.add(name)
                numbers = isinstance(before, int | float) and isinstance(after, int | float)
                note = f"{after - before:+.2g}" if numbers else ""
                yield Difference(
                    subject, f"{name} at step {step}", _value(before), _value(after), note
                )


def _common_steps(kind: str, a: _Record, b: _Record) -> list[int]:
    return [
        step
        for step in sorted(a.metrics.keys() & b.metrics.keys())
        if _of_kind(a, step, kind) and _of_kind(b, step, kind)
    ]


def _of_kind(run: _Record, step: int, kind: str) -> dict[str, Any]:
    return {
        name.removeprefix(kind): value
        for name, value in run.metrics.get(step, {}).items()
        if name.startswith(kind) and name != _NOT_COMPARED
    }


def _value(value: Any) -> str:
    return "not finite" if value is None else str(value)


def _parameters(a: _Record, b: _Record) -> Iterator[Difference]:
    if a.sha256 is None or a.sha256 != b.sha256:
        one, other = (run.sha256 or "unknown, as it has not ended" for run in (a, b))
        yield Difference("parameters", _SHA256, one, other)


def _report(a: _Record, b: _Record, differences: Sequence[Difference]) -> Iterator[str]:
    yield f"A: {a.path}"
    yield f"B: {b.path}"
    for subject, heading in _HEADINGS.items():
        lines = [str(difference) for difference in differences if difference.subject == subject]
        if subject == "evaluations":
            lines = [*_evaluations(a, b), *lines]
        elif subject == "classes" and len(lines) > _LISTED:
            lines[_LISTED:] = [f"... and {len(lines) - _LISTED} others"]
        elif subject in ("data", "starts") and not any(_starts(run) for run in (a, b)):
            lines = lines or ["not recorded"]
        yield ""
        yield f"{heading}:" if lines else f"{heading}: the same"
        yield from (f"  {line}" for line in lines)
        if subject == "training":
            yield f"  {len(_common_steps('train/', a, b)):,} steps compared"
    differing = dict.fromkeys(entry.subject for entry in differences if entry.in_result)
    yield ""
    yield (
        f"The results differ: {', '.join(differing)}."
        if differing
        else "Both ended with the same parameters, by the same metrics."
    )


def _evaluations(a: _Record, b: _Record) -> list[str]:
    """The accuracies side by side."""
    found = {
        step: (_of_kind(a, step, "eval/"), _of_kind(b, step, "eval/"))
        for step in sorted({*a.metrics, *b.metrics})
    }
    names = dict.fromkeys(
        name
        for pair in found.values()
        for one in pair
        for name in one
        if name.endswith(("_top1", "_map"))
    )
    if not names:
        return ["there are none"]
    rows = [("step", *(f"{name} {letter}" for name in names for letter in "AB"))]
    for step, pair in found.items():
        if any(pair):
            cells = (f"{one[name]:.2%}" if name in one else "-" for name in names for one in pair)
            rows.append((f"{step:,}", *cells))
    return align(rows)
