"""Which runs and stages share compiled programs, and what of them is in the log."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
import tiny
from jax.experimental.compilation_cache import compilation_cache
from tiny_families import PlainConfig, families

from effnetv2_jax.config import AugmentConfig, ConfigError, Experiment
from effnetv2_jax.config.checks import check
from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.outputs.writers import read_log
from effnetv2_jax.parallel.mesh import make_mesh, put_batch
from effnetv2_jax.progressive import Stage, linear
from effnetv2_jax.train import state as state_module
from effnetv2_jax.train.loop import train
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.schedule import learning_rate
from effnetv2_jax.train.state import abstract_state, build_model, create_state, key_of
from effnetv2_jax.train.step import as_float32, make_train_step, step_values

__all__ = ["families"]

pytestmark = pytest.mark.usefixtures("quick_compilation")

STAGES = linear(
    3,
    first=Stage(image_size=32, dropout_rate=0.1, mixup_alpha=0.1),
    last=Stage(image_size=32, dropout_rate=0.3, cutmix_alpha=0.4, randaugment_magnitude=9.0),
)


def quick(**fields: Any) -> Experiment:
    """Without augmentation, which would only take time to compile."""
    return tiny.experiment(augment=AugmentConfig(policy="none", flip=False), **fields)


def test_seeds_share_their_programs() -> None:
    steps, states = [], []
    for seed in (0, 1):
        experiment = quick(seed=seed)
        mesh = make_mesh(jax.devices()[:1])
        model, optimizer = build_model(experiment, 6), make_optimizer(experiment)
        create = jax.jit(state_module._initializer(experiment, model, optimizer))
        states.append(create.lower(key_of(seed)).as_text())
        state = abstract_state(experiment, model, optimizer, mesh)
        step: Any = make_train_step(experiment, model, optimizer, mesh)
        values = as_float32(step_values(experiment.stages[0], 0.1))
        batch = put_batch(tiny.random_batch(32), mesh)
        steps.append(step.lower(state, batch, values, key_of(seed)).as_text())
    assert steps[0] == steps[1]
    assert states[0] == states[1]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """A compilation cache that keeps everything, and is empty at first."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    folder = tmp_path / "cache"
    for name, value in zip(names, (str(folder), 0.0), strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield folder
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.mark.usefixtures("families")
def test_a_run_of_another_seed_compiles_nothing(cache: Path, tmp_path: Path) -> None:
    def programs() -> set[str]:
        return {path.name for path in cache.iterdir() if path.name.endswith("-cache")}

    results = []
    for seed in (0, 1):
        experiment = quick(steps=6, seed=seed, stages=STAGES, model=PlainConfig())
        results.append(train(experiment, tmp_path / f"seed_{seed}"))
        if seed == 0:
            first = programs()
    steps = [name for name in first if name.startswith("jit_train_step")]
    assert len(steps) == 1, "and so do stages of one size"
    assert programs() == first
    assert results[0]["raw_loss"] != results[1]["raw_loss"]


@pytest.mark.usefixtures("families")
@pytest.mark.parametrize("scheduled", [False, True])
def test_every_row_of_the_log_has_the_values_of_its_step(scheduled: bool, tmp_path: Path) -> None:
    stages = STAGES
    model: ModelConfig = PlainConfig()
    if scheduled:  # The last stage takes the model's own rate.
        model = tiny.MODEL
        depths = zip(STAGES, (0.0, 0.1, None), strict=True)
        stages = tuple(dataclasses.replace(s, stochastic_depth_rate=rate) for s, rate in depths)
    experiment = quick(steps=6, stages=stages, model=model)
    train(experiment, tmp_path)
    plan = experiment.plan(2016)
    rows = [row for row in read_log(tmp_path / "metrics.jsonl") if "train/loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 7))
    for row in rows:
        stage = plan.stage_at(row["step"] - 1).stage
        rate = learning_rate(experiment, plan, row["step"] - 1, num_examples=2016)
        expected = {"learning_rate": rate} | stage.traced()
        assert {name: row[f"train/{name}"] for name in expected} == expected
        assert row["train/image_size"] == 32
        names = {name for name in row if name.startswith("train/")}
        measured = {"loss", "top1", "gradient_norm", "images_per_second"}
        of_stage = {"stage", "image_size", "dropout_rate", "randaugment_magnitude"}
        of_stage |= {"mixup_alpha", "cutmix_alpha", "learning_rate"}
        of_stage |= {"stochastic_depth_rate"} if scheduled else set()
        assert names - {f"train/{name}" for name in measured} == {f"train/{n}" for n in of_stage}
    if scheduled:
        found = [row["train/stochastic_depth_rate"] for row in rows]
        own = tiny.MODEL.stochastic_depth_rate
        assert found == [0.0, 0.0, 0.1, 0.1, own, own]


def test_stages_with_a_rate_of_stochastic_depth_share_a_step() -> None:
    # The model's own rate is 0.2: the same one from the stage has to skip the same blocks.
    experiment = quick(stages=STAGES)
    losses = []
    for rate in (None, 0.2, 0.0):
        stages = tuple(dataclasses.replace(s, stochastic_depth_rate=rate) for s in STAGES)
        run = dataclasses.replace(experiment, stages=stages)
        mesh = make_mesh(jax.devices()[:1])
        model, optimizer = build_model(run, 6), make_optimizer(run)
        state = create_state(run, model, optimizer, mesh)
        step: Any = make_train_step(run, model, optimizer, mesh)
        values = as_float32(step_values(stages[0], 0.0))
        _, metrics = step(state, put_batch(tiny.random_batch(32), mesh), values, key_of(0))
        losses.append(float(metrics["loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)


def test_a_rate_of_stochastic_depth_has_to_be_one() -> None:
    stages = (dataclasses.replace(STAGES[0], stochastic_depth_rate=1.0),)
    with pytest.raises(ConfigError, match=r"stages\[0\].stochastic_depth_rate must be in \[0, 1\)"):
        check(quick(stages=stages))
