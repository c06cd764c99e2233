"""A run ends early after evaluations that are no better, at the same step however it got there."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import tiny

from effnetv2_jax.config import (
    CheckpointConfig,
    ConfigError,
    EarlyStoppingConfig,
    EvaluationConfig,
    Experiment,
)
from effnetv2_jax.config.reading import from_config_dict, to_config_dict
from effnetv2_jax.outputs.workdir import read_config
from effnetv2_jax.train.early_stopping import Patience
from effnetv2_jax.train.loop import train


def patience(limit: int | None, *, by: str = "top1", gain: float = 0.0) -> Patience:
    return Patience(by=by, limit=limit, min_gain=gain)


def stops_after(patience: Patience, values: list[float], name: str = "top1") -> int | None:
    """How many evaluations a run has; None if it goes through all of them."""
    for index, value in enumerate(values):
        # As from one checkpoint to the next.
        saved = json.loads(json.dumps(patience.after({name: value}).to_json()))
        patience = patience.restored(saved)
        if patience.is_exhausted:
            return index + 1
    return None


@pytest.mark.parametrize(
    ("limit", "values", "expected"),
    [
        (None, [0.5, 0.4, 0.3, 0.2], None),
        (1, [0.5, 0.4, 0.6], 2),
        (2, [0.5, 0.4, 0.6, 0.6, 0.5, 0.9], 5),  # An equal one is no better.
        (3, [0.5, 0.4, 0.3, 0.6], None),
    ],
)
def test_it_waits_for_a_better_evaluation(
    limit: int | None, values: list[float], expected: int | None
) -> None:
    assert stops_after(patience(limit), values) == expected


def test_a_loss_is_better_where_it_is_lower() -> None:
    losses = [1.0, 0.8, 0.9, 0.7, 0.75, 0.72]
    assert stops_after(patience(2, by="loss"), losses, "raw_loss") == 6
    assert stops_after(patience(2, by="raw_loss"), losses, "raw_loss") == 6


def test_a_small_gain_does_not_count() -> None:
    rising = [0.5, 0.505, 0.509, 0.52]
    assert stops_after(patience(2, gain=0.01), rising) == 3
    assert stops_after(patience(3, gain=0.01), rising) is None


def test_what_is_no_patience_is_refused() -> None:
    for config in (EarlyStoppingConfig(patience=0), EarlyStoppingConfig(min_gain=-1.0)):
        run = tiny.experiment(early_stopping=config)
        with pytest.raises(ConfigError, match="early_stopping"):
            from_config_dict(to_config_dict(run))


def stopping() -> Experiment:
    """Eight steps, evaluated after each: nothing gains a whole, so it stops after the third."""
    run = tiny.experiment(
        early_stopping=EarlyStoppingConfig(patience=2, min_gain=1.0),
        checkpoint=CheckpointConfig(keep_last=9),
        data=dataclasses.replace(tiny.experiment().data, eval_split="test[:16]"),
    )
    each = tiny.BATCH / 2016
    evaluation = EvaluationConfig(image_size=40, batch_size=16, every_epochs=each)
    return dataclasses.replace(run, evaluation=evaluation)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_a_run_stops_at_the_same_step_after_an_interruption(tmp_path: Path) -> None:
    run, whole, broken = stopping(), tmp_path / "whole", tmp_path / "broken"
    result = train(run, whole)
    steps = [int(path.name) for path in (whole / "checkpoints").iterdir() if path.name.isdigit()]
    assert sorted(steps) == [1, 2, 3]
    events = [json.loads(line) for line in (whole / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events if event["event"] != "start"] == ["stopped_early"]
    assert "stopped early after step 3 of 8" in events[-1]["message"]
    assert train(run, whole) == result  # And stays so.

    shutil.copytree(whole, broken)
    for step in (2, 3):
        shutil.rmtree(broken / "checkpoints" / str(step))
    assert train(run, broken) == result
    assert (broken / "metrics.jsonl").read_text().count("eval/raw_top1") == 3
    assert read_config(broken)["early_stopping"] == {"patience": 2, "min_gain": 1.0}
