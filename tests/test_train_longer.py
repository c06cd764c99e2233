"""Training on for other epochs than a run began with: exact, or refused."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
import tiny
from chaos import runs
from etils import epath

from effnetv2_jax.config import (
    CheckpointConfig,
    Constant,
    Cosine,
    Experiment,
    Exponential,
    WarmupStableDecay,
)
from effnetv2_jax.config.schedules import ScheduleConfig
from effnetv2_jax.outputs.checkpoints import Checkpoints
from effnetv2_jax.outputs.progress import Progress
from effnetv2_jax.outputs.workdir import WorkdirError, began_with
from effnetv2_jax.train.longer import EPOCHS, plan_from
from effnetv2_jax.train.loop import train
from effnetv2_jax.train.schedule import learning_rate

EXAMPLES = 160
"""Ten steps an epoch."""


def experiment(epochs: float, schedule: ScheduleConfig) -> Experiment:
    return dataclasses.replace(tiny.experiment(), epochs=epochs, schedule=schedule)


def done(workdir: Path, steps: int, epochs: float | None = None) -> epath.Path:
    """A run that has done so many steps of so many epochs."""
    with Checkpoints(workdir / "checkpoints", CheckpointConfig()) as checkpoints:
        extra = {} if epochs is None else {EPOCHS: epochs}
        checkpoints.save(steps, {"params": jnp.zeros(1)}, extra=extra)
    return epath.Path(workdir)


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        (Constant(warmup_epochs=1.0), 40),
        (Exponential(decay_rate=0.9, decay_epochs=1.0), 40),
        (WarmupStableDecay(decay_epochs=1.0), 30),
        (Cosine(), 0),
        (Cosine(warmup_epochs=2.0), 20),
    ],
)
def test_the_last_stage_alone_grows(schedule: ScheduleConfig, steps: int, tmp_path: Path) -> None:
    workdir = done(tmp_path, steps) if steps else epath.Path(tmp_path)
    before, after = experiment(4, schedule), experiment(7, schedule)
    old = before.plan(EXAMPLES)
    plan = plan_from(after, workdir, began=4, num_examples=EXAMPLES)
    assert plan.stages[:-1] == old.stages[:-1]
    assert plan.stages[-1] == dataclasses.replace(old.stages[-1], end_step=70)
    for step in range(steps):
        assert plan.examples_before(step) == old.examples_before(step)
        rates = [
            learning_rate(one, which, step, num_examples=EXAMPLES)
            for one, which in ((before, old), (after, plan))
        ]
        assert rates[0] == rates[1]


@pytest.mark.parametrize(
    ("schedule", "steps", "until"),
    [
        (Cosine(), 40, None),
        (Cosine(), 2, None),
        (WarmupStableDecay(decay_epochs=1.0), 40, None),
        (WarmupStableDecay(decay_epochs=1.0), 60, 6.0),
    ],
)
def test_what_would_have_been_other_steps_is_refused(
    schedule: ScheduleConfig, steps: int, until: float | None, tmp_path: Path
) -> None:
    workdir = done(tmp_path, steps, until)
    with pytest.raises(WorkdirError) as raised:
        plan_from(experiment(9, schedule), workdir, began=4, num_examples=EXAMPLES)
    assert f"holds a run of {until or 4:g} epochs, and with 9" in str(raised.value)
    assert f"--config.init={workdir} --workdir=NEW" in str(raised.value)


def test_a_run_does_not_end_before_what_is_done(tmp_path: Path) -> None:
    workdir = done(tmp_path, 40)
    schedule = Constant()
    for epochs in (1.0, 3.0):
        with pytest.raises(WorkdirError, match="has done 40 steps, and its last stage begins at"):
            plan_from(experiment(epochs, schedule), workdir, began=4, num_examples=EXAMPLES)
    shorter = plan_from(experiment(5, schedule), workdir, began=8, num_examples=EXAMPLES)
    assert shorter.total_steps == 50


def test_what_a_run_began_with(tmp_path: Path) -> None:
    assert began_with(tmp_path, "epochs") is None
    (tmp_path / "config.json").write_text(json.dumps({"epochs": 4.0}))
    assert began_with(tmp_path, "epochs") == 4.0


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_a_longer_run_is_the_one_that_was_longer_from_the_beginning(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"stages": tiny.STAGES[:1], "schedule": Constant()}
    short, long = (tiny.experiment(steps=steps, **fields) for steps in (4, 8))
    train(short, tmp_path / "run")
    train(long, tmp_path / "run")
    train(long, tmp_path / "whole")
    last = [runs.deterministic(runs.metrics(tmp_path / name))[-1] for name in ("run", "whole")]
    assert last[0] == last[1]
    assert last[0]["step"] == 8
    said = io.StringIO()
    train(long, tmp_path / "whole", progress=Progress(stream=said))
    *_, finished, result, _, _, best, _, _ = said.getvalue().splitlines()
    assert finished == f"{tmp_path / 'whole'} is finished: all 8 steps are done"
    assert result.startswith("step 8 | 40 of 505 images | raw top-1")
    top1 = f"ema_top1 {last[0]['eval/ema_top1']:.2%}"
    assert best == f"best checkpoint: step 8, {top1}; {tmp_path / 'whole'}@best names it"
    with pytest.raises(
        WorkdirError, match=r"more than the 4 of config.epochs=.*; it was continued"
    ):
        train(short, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["epochs"] == short.epochs
