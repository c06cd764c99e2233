"""Batch and epochs that follow from the number of pictures."""

import dataclasses
from typing import Any

import config_files
import pytest
import tiny

from effnetv2_jax.cli.values import read_value
from effnetv2_jax.config import AugmentConfig, ConfigError, Cosine, EvaluationConfig, Experiment
from effnetv2_jax.config.derived import derivation, derive, suited_batch
from effnetv2_jax.config.reading import from_config_dict, to_config_dict
from effnetv2_jax.progressive import PlannedStage, Stage
from effnetv2_jax.train.costs import StepCost, largest_batch
from effnetv2_jax.train.doubts import FEW_STEPS


def experiment(**fields: Any) -> Experiment:
    stated: dict[str, Any] = {
        "batch_size": 0,
        "min_steps": 1000,
        "augment": AugmentConfig(),
    } | fields
    run = tiny.experiment(schedule=Cosine(warmup_epochs=1.0), **stated)
    evaluation = EvaluationConfig(image_size=40, every_epochs=5.0)
    return dataclasses.replace(run, epochs=20.0, evaluation=evaluation)


@pytest.mark.parametrize(
    ("examples", "batch"),
    [(10, 16), (320, 16), (1023, 16), (1024, 32), (10_000, 64), (1_281_167, 1024)],
)
def test_the_batch_grows_with_the_root_of_the_pictures(examples: int, batch: int) -> None:
    assert suited_batch(experiment(), examples) == batch
    assert derive(experiment(), examples).batch_size == batch


def test_the_batch_is_whole() -> None:
    assert suited_batch(experiment(), 320, unit=12) == 24
    assert suited_batch(experiment(augment=AugmentConfig(mix_group=10)), 320) == 20
    with pytest.raises(ConfigError, match=r"augment\.mix_group is 32"):
        derive(experiment(augment=AugmentConfig(mix_group=32)), 320, batch_size=16)


def test_a_small_set_has_its_steps_and_keeps_the_shape_of_the_run() -> None:
    derived = derive(experiment(), 320)
    assert derived.epochs == 50
    assert derived.plan(320).total_steps == 1000
    assert derived.schedule.warmup_epochs == 2.5
    assert derived.evaluation.every_epochs == 12.5
    assert derivation(experiment(), derived, 320) == (
        "derived from 320 pictures: batch_size=16, epochs=50 (for min_steps=1,000)"
    )
    # Again it stays as it is, as when a run continues.
    assert derive(derived, 320) == derived


def test_a_large_set_keeps_its_epochs() -> None:
    derived = derive(experiment(batch_size=32), 10_000)
    assert derived == experiment(batch_size=32)
    assert derivation(derived, derived, 10_000) == ""


def test_what_is_stated_or_began_stays() -> None:
    assert derive(experiment(batch_size=48), 320).batch_size == 48
    assert derive(experiment(), 320, batch_size=64).batch_size == 64
    assert derive(experiment(min_steps=0), 320).epochs == 20


def test_the_word_for_it_is_auto() -> None:
    assert read_value(int, "auto", "batch_size") == 0
    from_config_dict(to_config_dict(experiment()))
    staged = (Stage(image_size=32, batch_size=0), Stage(image_size=32))
    with pytest.raises(ConfigError, match=r"stages\[0\].batch_size must be above 0"):
        from_config_dict(to_config_dict(experiment(stages=staged)))


@pytest.mark.parametrize("size", ["small", "large"])
def test_a_few_hundred_pictures_are_seen_often_enough(size: str) -> None:
    run = derive(config_files.load("folder", size), 320)
    assert run.plan(320).total_steps == 5000 > FEW_STEPS
    assert run.evaluation.every_epochs < run.epochs / 4
    assert derive(config_files.load("folder", size), 20_000).epochs == 60


def test_the_search_for_the_largest_batch_ends_where_it_need_not_go_on() -> None:
    tried = []

    def costs(planned: PlannedStage) -> StepCost:
        tried.append(planned.batch_size)
        fits = planned.batch_size <= 100
        return StepCost(planned.batch_size, 0, fits, None, None, 0.0)

    planned = tiny.experiment().plan(2016).stages[0]
    assert largest_batch(costs, planned, devices=1, unit=8, most=16) == 16
    assert tried == [16]
    assert largest_batch(costs, planned, devices=1, unit=8, most=1000) == 96
