"""A run writes its report, and is none the worse if it cannot."""

import concurrent.futures
import dataclasses
import json
import pathlib
import re
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from etils import epath
from test_report import predictions

from effnetv2_jax.augment.places import Part
from effnetv2_jax.config.experiment import LogConfig
from effnetv2_jax.data import Unreadable, open_sources
from effnetv2_jax.outputs.report.facts import read_facts
from effnetv2_jax.outputs.report.gather import read_run_files
from effnetv2_jax.outputs.workdir import open_workdir
from effnetv2_jax.preprocessing import squashed
from effnetv2_jax.train.activity import Activity
from effnetv2_jax.train.feed import TrainingData
from effnetv2_jax.train.loop import train
from effnetv2_jax.train.reporter import Reporter
from effnetv2_jax.train.seen import closed_rows, seen_of
from effnetv2_jax.train.state import key_of
from effnetv2_jax.train.step import as_float32, keys_of_step, network_input, step_values

REPORTED = tiny.experiment(log=LogConfig(every_steps=1, tensorboard=False))


def training_data(experiment: Any = REPORTED) -> tuple[TrainingData, Any]:
    train_source, eval_source = open_sources(experiment.data)
    data = TrainingData(
        source=train_source,
        config=experiment.data,
        preprocessing=dataclasses.replace(squashed(40), interpolation="bilinear"),
        plan=experiment.plan(len(train_source)),
        seed=experiment.seed,
        unreadable=Unreadable(0),
    )
    return data, eval_source


def test_a_report_that_cannot_be_written_is_said(tmp_path: pathlib.Path) -> None:
    data, eval_source = training_data()
    said: list[str] = []
    missing = epath.Path(tmp_path / "no" / "such")
    reporter = Reporter(
        REPORTED, missing, data, eval_source, say=said.append, submit=lambda task: never()
    )
    reporter.write(8, predictions(6, 40))
    (line,) = said
    assert line.startswith("the report could not be written, and the run goes on: ")
    assert f"python -m effnetv2_jax.report {missing}" in line


def test_a_report_may_be_switched_off(tmp_path: pathlib.Path) -> None:
    data, eval_source = training_data()
    said: list[str] = []
    for log, enabled in ((LogConfig(report=False), True), (LogConfig(), False)):
        experiment = dataclasses.replace(REPORTED, log=log)
        workdir = epath.Path(tmp_path)
        reporter = Reporter(
            experiment, workdir, data, eval_source, say=said.append, enabled=enabled
        )
        reporter.write(8, predictions(6, 40))
    assert not said
    assert not list(tmp_path.iterdir())


def test_pictures_that_are_not_ready_are_left_out(tmp_path: pathlib.Path) -> None:
    data, eval_source = training_data()
    config = dataclasses.asdict(REPORTED.settled())
    workdir = open_workdir(tmp_path, config, eval_source.class_names, squashed(40))
    waiting = never()
    said: list[str] = []
    reporter = Reporter(
        REPORTED, workdir, data, eval_source, say=said.append, submit=lambda task: waiting
    )
    reporter.write(4, predictions(6, 40))
    assert not said
    found = read_facts(workdir)
    assert found is not None
    assert found.seen == []
    assert "still being made" in found.unseen
    assert found.splits["training"].class_counts == [322, 398, 327, 475, 384, 110]
    assert found.twins.count == 0
    assert len(found.thumbnails) >= 24
    run = read_run_files(workdir)
    assert run.files[0].startswith("trashnet/1.0.0 test[:40] example 0 (")


def never() -> concurrent.futures.Future[Any]:
    """What is never done."""
    return concurrent.futures.Future()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_what_is_shown_is_what_the_step_saw() -> None:
    """Made of some rows, on the CPU, it is the same as those rows of the whole batch."""
    augment = dataclasses.replace(REPORTED.augment, mix_group=None, erasing=0.5)
    experiment = dataclasses.replace(REPORTED, augment=augment)
    data, _ = training_data(experiment)
    planned = data.plan.stages[1]
    shown = seen_of(experiment, data, planned)

    batch = next(data.batches(planned, planned.first_step))
    values = as_float32(step_values(planned.stage, learning_rate=0.0))
    rows = closed_rows(planned.batch_size, None)

    @jax.jit
    def whole(batch: Any, values: Any, key: Any) -> Any:
        keys = keys_of_step(key, planned.first_step)
        return network_input(experiment, data.preprocessing, "float32", batch, values, keys)

    seen = whole(batch, values, key_of(experiment.seed))
    pixels = np.asarray(seen.images)[rows] * 128 + 128
    np.testing.assert_allclose(shown.pixels, pixels.clip(0, 255), atol=1.01)
    np.testing.assert_allclose(shown.weight, np.asarray(seen.weight)[rows], rtol=1e-5)
    np.testing.assert_array_equal(shown.labels, batch["labels"][rows])
    np.testing.assert_array_equal(shown.partner_labels, np.asarray(seen.partner_labels)[rows])
    assert (shown.weight < 1).any()
    assert Part(rows.start, planned.batch_size) == Part(2, 16)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_a_run_leaves_a_report(tmp_path: pathlib.Path) -> None:
    result = train(REPORTED, tmp_path / "run", origin={"config_file": "mine.py", "changed": []})
    page = (tmp_path / "run" / "report.html").read_text()
    match = re.search(r'id="accuracy">([\d.]+)%', page)
    assert match is not None
    assert match[1] == f"{100 * result['top1']:.1f}"
    run = read_run_files(tmp_path / "run")
    assert run.facts is not None
    assert [seen.stage for seen in run.facts.seen] == [0, 1]
    assert run.finished
    assert [axis for axis in ("by-step", "by-epoch", "by-time") if f'id="{axis}"' in page] == [
        "by-step",
        "by-epoch",
        "by-time",
    ]
    assert run.start_of("config_file") == "mine.py"
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["epoch"] == pytest.approx(8 * 16 / 2016, abs=1e-4)
    assert {"compiling", "training", "evaluating", "total"} <= last["spent"].keys()


def test_time_is_added_up_by_what_it_went_to() -> None:
    seconds = iter([0.0, 2.0, 5.0, 6.0, 10.0])
    said: list[str] = []
    activity = Activity(said.append, clock=lambda: next(seconds))
    activity.now("compiling", "the compilation of stage 1")
    activity.now("training", "step 1")
    activity.now("compiling", "the compilation of stage 2")
    assert activity.spent() == {"starting": 2.0, "compiling": 7.0, "training": 1.0, "total": 10.0}
    assert said == ["the compilation of stage 1", "step 1", "the compilation of stage 2"]
