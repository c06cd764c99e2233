"""What is said of runs that will hardly be what was meant."""

import dataclasses
from pathlib import Path

import pytest
import tiny

from effnetv2_jax.config import Constant, Cosine, Experiment
from effnetv2_jax.main import main
from effnetv2_jax.progressive import Stage
from effnetv2_jax.train.doubts import FEW_STEPS, doubts

EXAMPLES = 1600
"""A hundred steps an epoch."""
QUICKSTART = f"--config={Path(__file__).parent.parent / 'configs' / 'quickstart.py'}"


def said(experiment: Experiment, examples: int = EXAMPLES) -> list[str]:
    return list(doubts(experiment, experiment.plan(examples), examples))


def experiment(epochs: float, *, warmup: float = 0.0, batch: int = 16) -> Experiment:
    run = tiny.experiment(schedule=Cosine(warmup_epochs=warmup), batch_size=batch)
    return dataclasses.replace(run, epochs=epochs, stages=(Stage(image_size=32),))


def test_of_a_usual_run_nothing_is_said() -> None:
    assert said(experiment(10, warmup=1)) == []


def test_a_warm_up_that_is_longer_than_the_run() -> None:
    (doubt,) = said(experiment(5, warmup=10))
    assert doubt == (
        "config.schedule.warmup_epochs is 10, and the run has 5 epochs: it ends while the learning "
        "rate still rises, at 50% of its peak"
    )


def test_few_steps() -> None:
    few, statistics = said(experiment(1))
    assert "the run has 100 steps, which are few" in few
    assert "after 100 steps 37% of BatchNorm's statistics are still" in statistics
    assert said(dataclasses.replace(experiment(1), init="in1k")) == [few]
    frozen = dataclasses.replace(tiny.MODEL, bn_frozen=True)
    assert said(dataclasses.replace(experiment(1), model=frozen)) == [few]
    assert len(said(experiment((FEW_STEPS - 1) / 100))) == 2
    assert len(said(experiment(FEW_STEPS / 100))) == 1
    assert said(experiment(3)) == []


def test_a_batch_larger_than_the_data() -> None:
    large = dataclasses.replace(experiment(600, batch=32), schedule=Constant())
    (doubt,) = said(large, examples=20)
    assert "a batch of 32 holds more examples than the 20 that there are" in doubt


def test_a_plan_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--mode=plan", "--config.schedule.warmup_epochs=30"]
    assert main(["program", QUICKSTART, *arguments]) == 0
    *_, note = capsys.readouterr().out.splitlines()
    assert note.startswith("note: config.schedule.warmup_epochs is 30, and the run has 22 epochs")
    assert main(["program", QUICKSTART, "--mode=plan"]) == 0
    assert "note:" not in capsys.readouterr().out
