"""Writes a run's report while it trains: what evaluation found, and what only the data say."""

import base64
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, TimeoutError
from pathlib import Path
from typing import Any, Protocol, TypeVar

import jax
import numpy as np
from etils import epath

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data import DecodeError, Source
from effnetv2_jax.data.inspection import Inspection, inspect, name_of, twins
from effnetv2_jax.data.pictures.thumbnail import thumbnail, to_jpeg
from effnetv2_jax.data.record import available
from effnetv2_jax.data.report import EVALUATION, TRAINING
from effnetv2_jax.outputs.predictions import PREDICTIONS, Predictions, write_predictions
from effnetv2_jax.outputs.report.accuracy import worth_a_look
from effnetv2_jax.outputs.report.facts import (
    Facts,
    Picture,
    PlannedRow,
    Seen,
    Split,
    Thumbnail,
    Twins,
    write_facts,
)
from effnetv2_jax.progressive import Plan, PlannedStage
from effnetv2_jax.train.evaluate import judged_by
from effnetv2_jax.train.feed import TrainingData
from effnetv2_jax.train.seen import SeenBatch, seen_of

_PICTURES = 24
_SIDE = 112
"""Of a thumbnail, in pixels."""
_STAGES = 6
"""Of which pictures of a batch are shown."""
_LISTED = 50
"""Twins and unreadable files that are named."""
_WAIT = 30.0
"""Seconds that the last report waits for pictures that are still being made."""

Result = TypeVar("Result")


class Submit(Protocol):
    """Does something in the background."""

    def __call__(self, task: Callable[[], Result], /) -> "Future[Result]": ...


class Reporter:
    """Writes `report.html` and the files it is made from.

    Only the first process of a run has one that is enabled. Whatever fails is said, and ends
    nothing: a run is worth more than its report.

    Args:
      data: what is trained on, in the order that held at the start.
      notes: what was said when the run began.
      say: shows a line.
      submit: makes pictures in the background, which takes a compilation for each image size; None
        makes them at once.
      enabled: False does nothing.
    """

    def __init__(
        self,
        experiment: Experiment,
        workdir: epath.Path,
        data: TrainingData,
        eval_source: Source,
        *,
        notes: Sequence[str] = (),
        say: Callable[[str], None],
        submit: Submit | None = None,
        enabled: bool = True,
    ) -> None:
        self._experiment = experiment
        self._workdir = workdir
        self._data = data
        self._eval_source = eval_source
        self._notes = list(notes)
        self._say = say
        self._submit = submit or _at_once
        self.enabled = enabled and experiment.log.report
        self._wanted: dict[str, Any] = {
            "channels": data.preprocessing.channels,
            "max_pixels": experiment.data.max_pixels,
        }
        self._inspected: tuple[Inspection, Inspection] | None = None
        self._seen: list[tuple[PlannedStage, Future[SeenBatch]]] = []

    def write(
        self, done: int, predictions: Predictions, *, seconds_left: float | None = None
    ) -> None:
        """Writes the report of an evaluation.

        Args:
          done: steps.
          predictions: of the evaluation.
          seconds_left: an estimate for the rest of the run.
        """
        if not self.enabled:
            return
        try:
            self._write(done, predictions, seconds_left)
        except Exception as error:
            self._say(
                f"the report could not be written, and the run goes on: {error or repr(error)}; "
                f"python -m effnetv2_jax.report {self._workdir} tries again"
            )

    def _write(self, done: int, predictions: Predictions, seconds_left: float | None) -> None:
        # Imported here: Jinja takes a tenth of a second, and not every run writes a report.
        from effnetv2_jax.outputs.report.page import write_report

        plan, source = self._data.plan, self._eval_source
        if not self._seen:
            self._begin_pictures()
        if self._inspected is None:
            self._inspected = (
                inspect(self._data.source, **self._wanted),
                inspect(source, **self._wanted),
            )
        train, evaluation = self._inspected
        keys = evaluation.keys
        files = [keys[i] if keys else name_of(source, i) for i in predictions.index.tolist()]
        write_predictions(self._workdir / PREDICTIONS, predictions, files, source.class_names)
        seen, unseen = self._pictures(final=done == plan.total_steps)
        weights = ("raw", "ema") if self._experiment.ema_decay is not None else ("raw",)
        facts = Facts(
            step=done,
            plan=_planned(plan, len(self._data.source)),
            epochs=self._experiment.epochs,
            judged_by=judged_by(weights),
            device=_device(),
            splits={
                TRAINING: _split(self._data.source, train),
                EVALUATION: _split(source, evaluation),
            },
            notes=self._notes,
            twins=_twins(train, evaluation),
            unreadable=self._unreadable(predictions, keys),
            seen=seen,
            unseen=unseen,
            thumbnails=self._thumbnails(predictions),
            seconds_left=seconds_left,
        )
        write_facts(self._workdir, facts)
        write_report(self._workdir, (predictions, files))

    def _begin_pictures(self) -> None:
        for planned in self._data.plan.stages[:_STAGES]:
            if planned.end_step > planned.first_step:
                task = functools.partial(seen_of, self._experiment, self._data, planned)
                self._seen.append((planned, self._submit(task)))

    def _pictures(self, *, final: bool) -> tuple[list[Seen], str]:
        """What is ready, and why there is no more."""
        found, reason = [], ""
        for planned, future in self._seen:
            try:
                batch = future.result(timeout=_WAIT if final else 0)
            except TimeoutError:
                reason = "The pictures of the other stages are still being made."
                if final:
                    reason = f"python -m effnetv2_jax.report {self._workdir} makes the others."
                break
            except Exception as error:
                reason = f"There are no others: {error or repr(error)}"
                break
            pictures = self._described(batch)
            found.append(Seen(stage=planned.index, step=planned.first_step, pictures=pictures))
        if not reason and len(self._data.plan.stages) > _STAGES:
            reason = f"The first {_STAGES} of {len(self._data.plan.stages)} stages."
        return found, reason

    def _described(self, batch: SeenBatch) -> list[Picture]:
        names = self._data.source.class_names
        found = []
        for pixels, labels, partners, weight in zip(*batch, strict=True):
            own, other = ([names[n] for n in row if n >= 0] for row in (labels, partners))
            text = ", ".join(own)
            if weight < 1 and own != other:
                text = f"{text} {weight:.0%}, {', '.join(other)} {1 - weight:.0%}"
            found.append(Picture(source=_address(to_jpeg(pixels)), text=text))
        return found

    def _unreadable(self, predictions: Predictions, keys: Sequence[str] | None) -> list[str]:
        """Files that have no prediction though they may have a label."""
        source = self._eval_source
        missing = np.setdiff1d(np.arange(len(source)), predictions.index)[:_LISTED]
        if self._experiment.data.max_labels > 1:  # They may as well be without a label.
            return []
        return [keys[i] if keys else name_of(source, i) for i in missing.tolist()]

    def _thumbnails(self, predictions: Predictions) -> dict[int, Thumbnail]:
        highest, least = worth_a_look(predictions, _PICTURES)
        rows = dict.fromkeys([*highest, *least[: _PICTURES // 2]])
        found = {}
        for index in predictions.index[list(rows)].tolist():
            try:
                record = self._eval_source[index]
                small = thumbnail(
                    record.encoded, exif=self._eval_source.exif, side=_SIDE, **self._wanted
                )
            except (DecodeError, OSError):
                continue
            found[index] = Thumbnail(source=_address(small), link=_link(record.key))
        return found


def _at_once(task: Callable[[], Result]) -> "Future[Result]":
    future: Future[Result] = Future()
    try:
        future.set_result(task())
    except Exception as error:
        future.set_exception(error)
    return future


def _planned(plan: Plan, examples: int) -> list[PlannedRow]:
    return [
        PlannedRow(
            first_step=planned.first_step,
            end_step=planned.end_step,
            image_size=planned.stage.image_size,
            batch_size=planned.batch_size,
            epoch=planned.first_example / examples,
            values=planned.stage.traced(),
        )
        for planned in plan.stages
    ]


def _split(source: Source, found: Inspection) -> Split:
    return Split(
        name=source.name,
        examples=len(source),
        available=available(source),
        class_counts=found.class_counts,
        sizes=found.sizes,
    )


def _twins(train: Inspection, evaluation: Inspection) -> Twins:
    pairs = twins(train, evaluation)
    if pairs is None:
        return Twins(unchecked="the pictures are too many to read them all for it")
    return Twins(pairs=[list(pair) for pair in pairs[:_LISTED]], count=len(pairs))


def _device() -> str:
    device = jax.local_devices()[0]
    kind = device.device_kind
    return device.platform if kind == device.platform else f"{device.platform} {kind}"


def _address(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _link(key: str) -> str:
    """The address of a file on this machine."""
    path = Path(key)
    try:
        return path.absolute().as_uri() if path.is_file() else ""
    except (OSError, ValueError):
        return ""
