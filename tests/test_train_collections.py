"""Training networks without collections beside the parameters, and with several."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiny_families import Counting, CountingConfig, PlainConfig, _Network, families, family

from effnetv2_jax.config import AugmentConfig, ConfigError, Experiment
from effnetv2_jax.models import registry
from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.outputs.checkpoints import Checkpoints
from effnetv2_jax.parallel.mesh import make_mesh, put_batch
from effnetv2_jax.progressive import Stage
from effnetv2_jax.train.accumulation import mean_over_parts
from effnetv2_jax.train.evaluate_weights import evaluate_run
from effnetv2_jax.train.loop import train
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.state import TrainState, abstract_state, build_model, create_state, key_of
from effnetv2_jax.train.step import as_float32, make_train_step, step_values

__all__ = ["families"]

pytestmark = pytest.mark.usefixtures("quick_compilation", "families")

CONFIGS = [PlainConfig(), CountingConfig()]
COLLECTIONS = {"tiny-plain": set(), "tiny-counting": {"moments", "counters"}}


def experiment(model: ModelConfig, **fields: Any) -> Experiment:
    """One size, and no augmentation, which would only take time to compile."""
    augment = AugmentConfig(policy="none", flip=False)
    stages = (Stage(image_size=32, dropout_rate=0.1), Stage(image_size=32, dropout_rate=0.3))
    return tiny.experiment(model=model, augment=augment, **{"stages": stages, **fields})


def parts(run: Experiment) -> Any:
    model = build_model(run, 6)
    return run, model, make_optimizer(run), make_mesh(jax.devices()[:1])


def states(run: Experiment, *, steps: int) -> list[TrainState]:
    """The state before and after each of some steps, as NumPy arrays."""
    state = create_state(*parts(run))
    step = make_train_step(*parts(run))
    found = [jax.tree.map(np.asarray, state)]
    for seed in range(steps):
        batch = put_batch(tiny.random_batch(32, seed=seed), make_mesh(jax.devices()[:1]))
        values = as_float32(step_values(run.stages[0], 0.01))
        state, _ = step(state, batch, values, key_of(run.seed))
        found.append(jax.tree.map(np.asarray, state))
    return found


@pytest.mark.parametrize("config", CONFIGS)
def test_a_step_moves_whatever_collections_there_are(config: ModelConfig) -> None:
    before, after = states(experiment(config), steps=1)
    assert before.collections.keys() == COLLECTIONS[config.name]
    assert after.ema.keys() == COLLECTIONS[config.name] | {"params"}
    old, new = tiny.leaves_by_name(before), tiny.leaves_by_name(after)
    assert old.keys() == new.keys()
    assert [name for name in old if np.array_equal(old[name], new[name])] == []


def test_averages_are_of_floating_numbers_and_counters_are_the_newest() -> None:
    before, _, after = states(experiment(CountingConfig()), steps=2)
    assert before.ema["counters"]["calls"] == 0
    assert after.ema["counters"]["calls"] == after.collections["counters"]["calls"] == 2
    assert after.ema["counters"]["calls"].dtype == np.int32
    means = after.ema["moments"]["mean"], after.collections["moments"]["mean"]
    assert not np.allclose(*means, rtol=1e-3, atol=0)


def test_accumulation_averages_floating_numbers_and_counts_a_step_once() -> None:
    whole = states(experiment(CountingConfig()), steps=1)[-1]
    run = experiment(CountingConfig(), gradient_accumulation=4)
    accumulated = states(run, steps=1)[-1]
    assert accumulated.collections["counters"]["calls"] == 1
    # A mean of means of equal parts is the mean of all.
    np.testing.assert_allclose(
        accumulated.collections["moments"]["mean"],
        whole.collections["moments"]["mean"],
        rtol=1e-5,
        atol=1e-7,
    )


def test_of_parts_the_last_ones_keys_and_integers_are_taken() -> None:
    def function(rows: jax.Array) -> Any:
        last = rows[-1, 0].astype(jnp.int32)
        return {"mean": rows.mean(), "key": jax.random.key(last), "last": last}

    rows = jnp.arange(12.0).reshape(12, 1)
    found = jax.jit(lambda: mean_over_parts(function, rows, parts=3, group=4))()
    assert found["mean"] == 5.5
    assert found["last"] == 11
    assert bool(found["key"] == jax.random.key(11))


@pytest.mark.parametrize("config", CONFIGS)
def test_a_run_that_is_continued_ends_in_the_same_bits(config: ModelConfig, tmp_path: Path) -> None:
    run = experiment(config, steps=6, gradient_accumulation=2)
    result = train(run, tmp_path / "run")
    like = abstract_state(*parts(run)).to_dict()

    def saved() -> dict[str, np.ndarray]:
        with Checkpoints(tmp_path / "run" / "checkpoints", None) as checkpoints:
            assert checkpoints.latest_step() == 6
            return tiny.leaves_by_name(checkpoints.restore(like))

    whole = saved()
    assert {name.split("'")[1] for name in whole} == (
        COLLECTIONS[config.name] | {"step", "params", "opt_state", "ema"}
    )
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")
    assert train(run, tmp_path / "run") == result
    continued = saved()
    for name, leaf in whole.items():
        np.testing.assert_array_equal(continued[name], leaf, err_msg=name)
    (evaluated,) = evaluate_run(run, tmp_path / "run").values()
    assert {name: evaluated[name] for name in ("raw_loss", "ema_loss")} == pytest.approx(
        {name: result[name] for name in ("raw_loss", "ema_loss")}
    )


def test_a_state_and_its_dict_are_the_same() -> None:
    (state,) = states(experiment(CountingConfig()), steps=0)
    saved = state.to_dict()
    assert list(saved) == ["step", "params", "counters", "moments", "opt_state", "ema"]
    structures: list[Any] = [jax.tree.structure(s) for s in (TrainState.from_dict(saved), state)]
    assert structures[0] == structures[1]


@pytest.mark.parametrize(
    ("collection", "value", "complaint"),
    [
        ("ema", lambda: jnp.zeros(()), "odd has a collection 'ema', and"),
        ("noise", lambda: jax.random.key(0), "odd has a random key in its collection 'noise'"),
    ],
)
def test_what_checkpoints_cannot_hold_is_refused_at_the_start(
    collection: str, value: Callable[[], jax.Array], complaint: str
) -> None:
    class Odd(Counting):
        @nn.compact
        def __call__(self, *arguments: Any, **options: Any) -> jax.Array:
            self.variable(collection, "value", value)
            return super().__call__(*arguments, **options)

    registry.register(family(CountingConfig, Odd, "odd"))
    with pytest.raises(ConfigError, match=complaint):
        create_state(*parts(experiment(CountingConfig(name="odd"))))


def test_stochastic_depth_of_a_model_that_has_none_is_refused() -> None:
    stages = (Stage(image_size=32), Stage(image_size=32, stochastic_depth_rate=0.1))
    run = experiment(PlainConfig(), stages=stages)
    with pytest.raises(
        ConfigError,
        match=r"stages\[1\].stochastic_depth_rate is 0.1, but models of the family tiny-plain",
    ):
        build_model(run, 6)


def test_a_stage_cannot_take_a_rate_that_the_model_has_not() -> None:
    class Deep(_Network):
        def __call__(self, images: Any, train: bool, stochastic_depth_rate: Any = None) -> Any: ...

    registry.register(family(PlainConfig, Deep, "deep"))
    stages = (Stage(image_size=32), Stage(image_size=32, stochastic_depth_rate=0.1))
    run = experiment(PlainConfig(name="deep"), stages=stages)
    build_model(run, 6)
    with pytest.raises(ConfigError, match=r"stages\[0\].stochastic_depth_rate must be stated"):
        run.plan(2016)
