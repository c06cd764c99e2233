"""What the files of a workdir say of its run."""

import bisect
import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from effnetv2_jax.config.differences import flatten
from effnetv2_jax.outputs.predictions import PREDICTIONS, Predictions, read_predictions
from effnetv2_jax.outputs.report.facts import Facts, read_facts
from effnetv2_jax.outputs.workdir import WorkdirError, read_class_names, read_config, workdir_path
from effnetv2_jax.outputs.writers import EVENTS, METRICS, read_log

Row = dict[str, Any]

SPENT = "spent"
"""Of a row of an evaluation: seconds of this start by what they went to, with their `total`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFiles:
    """A run, as its workdir tells of it."""

    workdir: epath.Path
    config: Mapping[str, Any]
    classes: tuple[str, ...]
    training: list[Row]
    """Of `metrics.jsonl`, without `train/`."""
    evaluations: list[Row]
    """Likewise, without `eval/`; with `spent`, where it was recorded."""
    events: list[Row]
    facts: Facts | None
    predictions: Predictions | None
    """Of the newest evaluation."""
    files: list[str]
    """Of the predictions, by row."""
    trouble: str = ""
    """Why there are no predictions, where they cannot be read."""

    @property
    def name(self) -> str:
        return self.workdir.name

    @property
    def fields(self) -> dict[str, Any]:
        """The config's, by names such as `data.path`."""
        return dict(flatten(self.config))

    @property
    def total_steps(self) -> int:
        """Of the plan; of an unknown one those that are done."""
        if self.facts is not None and self.facts.plan:
            return self.facts.plan[-1].end_step
        return self.steps_done

    @property
    def steps_done(self) -> int:
        """As far as the log goes."""
        rows = (self.training[-1:], self.evaluations[-1:])
        return max((row["step"] for last in rows for row in last), default=0)

    @property
    def finished(self) -> bool:
        if not self.evaluations:
            return False
        last = self.evaluations[-1]
        stopped = [e.get("step") for e in self.events if e.get("event") == "stopped_early"]
        return "params_sha256" in last or last["step"] in stopped

    @property
    def judged_by(self) -> str:
        """`ema` or `raw`: the weights that an evaluation is judged by."""
        return "ema" if any("ema_loss" in row for row in self.evaluations) else "raw"

    @property
    def metric(self) -> str:
        """What an evaluation is judged by: `top1`, or `map`, the mean average precision."""
        averages = self.fields.get("evaluation.metric") == "average_precision"
        return "map" if averages else "top1"

    @property
    def best(self) -> Row | None:
        """The evaluation that `checkpoint.best_by` takes for the best; of equals the newest."""
        by = self.fields.get("checkpoint.best_by") or self.metric
        key = by if by.startswith("raw_") else f"{self.judged_by}_{by}"
        sign = -1 if key.endswith("loss") else 1
        rows = [row for row in self.evaluations if isinstance(row.get(key), float)]
        return max(rows, key=lambda row: (sign * row[key], row["step"])) if rows else None

    @property
    def spent(self) -> dict[str, float]:
        """Seconds of all starts together, by what they went to; empty where none were recorded."""
        begins = self._begins()
        last: dict[int, dict[str, float]] = {}
        for row in self.evaluations:
            written = _seconds(row)
            if isinstance(row.get(SPENT), dict) and written is not None:
                last[bisect.bisect(begins, written)] = row[SPENT]
        names = dict.fromkeys(name for spent in last.values() for name in spent)
        return {name: sum(spent.get(name, 0.0) for spent in last.values()) for name in names}

    def _begins(self) -> list[float]:
        """When the starts were, in seconds."""
        starts = [_seconds(event) for event in self.events if event.get("event") == "start"]
        return sorted(start for start in starts if start is not None)

    def start_of(self, field: str) -> str:
        """What the newest start recorded; empty where it is not known."""
        starts = [event for event in self.events if event.get("event") == "start"]
        return str(starts[-1].get(field) or "") if starts else ""

    def seconds_at(self) -> list[tuple[int, float]]:
        """Steps, and the seconds that the run had taken by then, pauses left out."""
        rows = [row for row in [*self.training, *self.evaluations] if "time" in row]
        begins = self._begins()
        if not begins or not rows:
            return []
        times = sorted((seconds, row["step"]) for row in rows if (seconds := _seconds(row)))
        found: list[tuple[int, float]] = []
        before = 0.0
        for begin, end in zip(begins, [*begins[1:], float("inf")], strict=True):
            within = [(seconds, step) for seconds, step in times if begin <= seconds < end]
            found += [(step, before + seconds - begin) for seconds, step in within]
            before += within[-1][0] - begin if within else 0.0
        return sorted(found)

    def epochs_at(self) -> list[tuple[int, float]]:
        """Steps, and the epochs that they had done by then."""
        plan = self.facts.plan if self.facts is not None else []
        if not plan or self.facts is None:
            return []
        return [(row.first_step, row.epoch) for row in plan] + [
            (plan[-1].end_step, self.facts.epochs)
        ]


def read_run_files(
    workdir: epath.PathLike, predicted: tuple[Predictions, list[str]] | None = None
) -> RunFiles:
    """Reads what lies in a workdir, but its checkpoints.

    Args:
      predicted: predictions and their files, for whoever has them; None reads them.

    Raises:
      WorkdirError: there is no run.
    """
    path = workdir_path(workdir)
    config = read_config(path)
    classes = read_class_names(path)
    training: list[Row] = []
    evaluations: list[Row] = []
    try:
        for line in read_log(path / METRICS):
            for kind, rows in (("train/", training), ("eval/", evaluations)):
                if any(name.startswith(kind) for name in line):
                    rows.append({name.removeprefix(kind): value for name, value in line.items()})
        events = read_log(path / EVENTS)
    except OSError as error:
        raise WorkdirError(f"cannot read the run in {path}: {error}") from error
    trouble = ""
    try:
        found = predicted or read_predictions(path / PREDICTIONS, classes)
    except ValueError as error:
        found, trouble = None, str(error)
    return RunFiles(
        workdir=path,
        config=config,
        classes=classes,
        training=training,
        evaluations=evaluations,
        events=events,
        facts=read_facts(path),
        predictions=found[0] if found else None,
        files=found[1] if found else [],
        trouble=trouble,
    )


def mapped(steps: Sequence[float], pairs: list[tuple[int, float]]) -> list[float]:
    """The values at steps that `pairs` of a step and a value have, linear between them."""
    known = np.array([(0, 0.0), *pairs], float)
    return [float(value) for value in np.interp(steps, known[:, 0], known[:, 1])]


def _seconds(row: Mapping[str, Any]) -> float | None:
    try:
        return datetime.datetime.fromisoformat(row["time"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None
