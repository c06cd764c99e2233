"""Callbacks are told what the log has, cannot change it, and do not end a run."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from effnetv2_jax import Callback
from effnetv2_jax.config import LogConfig
from effnetv2_jax.outputs.callbacks import Numbers
from effnetv2_jax.outputs.writers import Writers


class Notes(Callback):
    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def on_start(self, step: int, total_steps: int) -> None:
        self.told.append(("start", step, total_steps))

    def on_step_log(self, step: int, metrics: Numbers) -> None:
        self.told.append(("train", step, metrics))

    def on_evaluation(self, step: int, result: Numbers) -> None:
        self.told.append(("eval", step, result))


class Meddler(Callback):
    def on_step_log(self, step: int, metrics: Any) -> None:
        metrics["loss"] = 0.0


class Broken(Callback):
    def on_step_log(self, step: int, metrics: Numbers) -> None:
        raise RuntimeError("no display")


def write(folder: Path, *callbacks: Callback, enabled: bool = True) -> list[dict[str, Any]]:
    config = LogConfig(tensorboard=False)
    with Writers(folder, config, step=4, callbacks=callbacks, enabled=enabled) as writers:
        writers.begin(8)
        writers.write(5, "train", {"loss": 0.5})
        writers.write(6, "train", {"loss": 0.25})
        writers.write(6, "eval", {"raw_top1": 0.75}, params_sha256="abc")
    file = folder / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


TOLD = [
    ("start", 4, 8),
    ("train", 5, {"loss": 0.5}),
    ("train", 6, {"loss": 0.25}),
    ("eval", 6, {"raw_top1": 0.75}),
]


def test_they_are_told_what_is_written(tmp_path: Path) -> None:
    notes = Notes()
    write(tmp_path, notes)
    assert notes.told == TOLD


def test_none_can_change_what_others_see_or_what_is_written(tmp_path: Path) -> None:
    notes = Notes()
    rows = write(tmp_path, Meddler(), notes)
    assert notes.told == TOLD
    assert [row["train/loss"] for row in rows if "train/loss" in row] == [0.5, 0.25]


def test_one_that_fails_is_told_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notes = Notes()
    with caplog.at_level(logging.ERROR):
        write(tmp_path, Broken(), notes)
    assert notes.told == TOLD
    (record,) = caplog.records
    assert "Broken.on_step_log failed and is told no more; the run goes on" in record.message


def test_only_the_first_process_tells(tmp_path: Path) -> None:
    notes = Notes()
    write(tmp_path, notes, enabled=False)
    assert notes.told == []


def test_a_live_plot_draws_what_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="it plots with matplotlib")
    pytest.importorskip("IPython", reason="it shows itself by IPython")
    from effnetv2_jax import LivePlot

    shown: list[str] = []

    class Handle:
        def update(self, figure: Any) -> None:
            shown.append("updated")

    def display(figure: Any, *, display_id: bool) -> Handle:
        shown.append("new")
        return Handle()

    plot = LivePlot()
    monkeypatch.setattr(plot, "_display", display)
    write(tmp_path, plot)
    assert shown == ["new", "updated", "updated"]
    loss, accuracy, _ = plot.figure().axes
    assert loss.lines[0].get_xydata().tolist() == [[5, 0.5], [6, 0.25]]
    assert accuracy.lines[0].get_xydata().tolist() == [[6, 75]]
    # A continued run goes on in the same curves, without what it does again.
    write(tmp_path, plot)
    assert [step for step, _ in plot.rows["train"]] == [5, 6]
