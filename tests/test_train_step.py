"""One training step: what it computes, and that devices and settings do not change it."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import Mesh

from effnetv2_jax.config import AugmentConfig, Experiment
from effnetv2_jax.parallel.mesh import make_mesh, put_batch
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.state import (
    TrainState,
    build_model,
    create_state,
    key_of,
    moving_average,
)
from effnetv2_jax.train.step import TrainStep, as_float32, make_train_step, step_values

pytestmark = pytest.mark.usefixtures("quick_compilation")

VALUES = as_float32(step_values(tiny.STAGES[0], 0.05))
KEY = key_of(0)


@functools.cache
def begin(experiment: Experiment, devices: int) -> tuple[TrainState, TrainStep, Mesh]:
    mesh = make_mesh(jax.devices()[:devices])
    model = build_model(experiment, num_classes=6)
    optimizer = make_optimizer(experiment)
    state = create_state(experiment, model, optimizer, mesh)
    return state, make_train_step(experiment, model, optimizer, mesh), mesh


def start(experiment: Experiment, *, devices: int = 1) -> tuple[TrainState, TrainStep, Mesh]:
    """A first state and the step, which takes it; compiled once for all tests."""
    state, train_step, mesh = begin(experiment, devices)
    return jax.tree.map(jnp.copy, state), train_step, mesh


def run(experiment: Experiment, *, steps: int, devices: int = 1) -> TrainState:
    state, train_step, mesh = start(experiment, devices=devices)
    values, key = as_float32(step_values(tiny.STAGES[0], 0.002)), key_of(experiment.seed)
    for seed in range(steps):
        batch = tiny.random_batch(32, count=experiment.batch_size, seed=seed)
        state, _ = train_step(state, put_batch(batch, mesh), values, key)
    return state


def test_a_step_moves_everything_and_counts() -> None:
    state, train_step, mesh = start(tiny.experiment())
    before = tiny.leaves_by_name(state)
    batch = put_batch(tiny.random_batch(32), mesh)
    state, metrics = train_step(state, batch, VALUES, KEY)
    after = tiny.leaves_by_name(state)
    assert before.keys() == after.keys()
    unmoved = [name for name in before if np.array_equal(before[name], after[name])]
    assert unmoved == []
    assert int(state.step) == 1
    assert set(metrics) == {"loss", "top1", "gradient_norm"}
    assert all(np.isfinite(value) and value.dtype == np.float32 for value in metrics.values())


def test_the_state_is_donated() -> None:
    state, train_step, mesh = start(tiny.experiment())
    kernel = state.params["classifier"]["kernel"]
    train_step(state, put_batch(tiny.random_batch(32), mesh), VALUES, KEY)
    assert kernel.is_deleted()


def test_values_change_without_compiling_again() -> None:
    state, train_step, mesh = start(tiny.experiment())
    batch = tiny.random_batch(32)
    losses = []
    for stage in (
        tiny.STAGES[0],
        dataclasses.replace(tiny.STAGES[0], dropout_rate=0.9),
        dataclasses.replace(tiny.STAGES[0], randaugment_magnitude=30.0),
        dataclasses.replace(tiny.STAGES[0], mixup_alpha=0.0, cutmix_alpha=1.0),
    ):
        # The learning rate is 0 and the step the same: only the regularisation differs.
        state = dataclasses.replace(state, step=jnp.zeros_like(state.step))
        values = as_float32(step_values(stage, 0.0))
        state, metrics = train_step(state, put_batch(batch, mesh), values, KEY)
        losses.append(float(metrics["loss"]))
    assert len(set(losses)) == 4
    assert train_step._cache_size() == 1  # type: ignore[attr-defined]


def test_same_seed_and_step_give_the_same_bits_and_others_do_not() -> None:
    first, again = run(tiny.experiment(), steps=2), run(tiny.experiment(), steps=2)
    other = run(tiny.experiment(seed=1), steps=2)
    kernel = first.params["classifier"]["kernel"]
    np.testing.assert_array_equal(kernel, again.params["classifier"]["kernel"])
    assert not np.array_equal(kernel, other.params["classifier"]["kernel"])


def test_keys_are_those_of_their_seeds() -> None:
    for seed in (0, 7, 2**31, 2**40 + 3):
        wrapped = jax.jit(jax.random.wrap_key_data)(key_of(seed))
        assert bool(jax.jit(lambda seed=seed: jax.random.key(seed))() == wrapped)


@pytest.mark.parametrize("bn_group", [None, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("x64")
def test_eight_devices_give_the_parameters_of_one_in_float64(bn_group: int | None) -> None:
    # Groups of BatchNorm and of mixup span devices, which have two examples each.
    model = dataclasses.replace(tiny.MODEL, dtype="float64", bn_group=bn_group)
    experiment = tiny.experiment(model=model)
    one, eight = run(experiment, steps=20), run(experiment, steps=20, devices=8)
    _assert_close(one, eight, 1e-9)


@pytest.mark.slow
def test_eight_devices_give_nearly_the_parameters_of_one_in_float32() -> None:
    # Each device has a whole group.
    model = dataclasses.replace(tiny.MODEL, bn_group=8)
    experiment = tiny.experiment(model=model, batch_size=64)
    one, eight = run(experiment, steps=20), run(experiment, steps=20, devices=8)
    _assert_close(one, eight, 2e-3)


def test_ema_follows_its_warmup() -> None:
    for step in (0, 1, 100, 10**7):
        rate = min(0.9999, (1 + step) / (10 + step))
        old, new = {"v": jnp.array([1.0, 2.0])}, {"v": jnp.array([3.0, -5.0])}
        average = moving_average(old, new, step=jnp.int32(step), decay=0.9999)
        expected = rate * np.array([1.0, 2.0]) + (1 - rate) * np.array([3.0, -5.0])
        np.testing.assert_allclose(average["v"], expected, rtol=1e-5)


def test_ema_covers_parameters_and_batch_statistics() -> None:
    experiment = tiny.experiment()
    begin, _, _ = start(experiment)
    begin = jax.tree.map(np.asarray, begin)
    after = run(experiment, steps=1)
    assert after.ema.keys() == {"params", "batch_stats"}
    jax.tree.map(
        # At step 0 the decay is 1 / 10.
        lambda old, new, ema: np.testing.assert_allclose(
            ema, 0.1 * old + 0.9 * new, rtol=1e-4, atol=1e-6
        ),
        begin.variables,
        after.variables,
        after.ema,
    )


def test_without_ema_there_is_none() -> None:
    state, train_step, mesh = start(tiny.experiment(ema_decay=None))
    batch = put_batch(tiny.random_batch(32), mesh)
    after, _ = jax.eval_shape(train_step, state, batch, VALUES, KEY)
    assert state.ema is None
    assert after.ema is None


def _assert_close(one: TrainState, eight: TrainState, tolerance: float) -> None:
    """Every value, relative to itself or, if it is below 1, in absolute terms.

    Biases before another BatchNorm have no gradient but rounding, hence no digits to compare.
    """
    expected, found = tiny.leaves_by_name(one), tiny.leaves_by_name(eight)
    off = {
        name: (np.abs(value - found[name]) / np.maximum(np.abs(value), 1)).max()
        for name, value in expected.items()
    }
    worst = max(off, key=off.__getitem__)
    assert off[worst] <= tolerance, f"{worst} is off by {off[worst]:.1e}"


PLAIN = AugmentConfig(policy="none", mix_group=8)
"""Compiles in half the time, for what does not depend on the policy."""


def without_chance(**fields: Any) -> Experiment:
    """Without dropout and stochastic depth, whose draws are of a part's own."""
    model = dataclasses.replace(tiny.MODEL, **{"stochastic_depth_rate": 0.0, **fields.pop("model")})
    return tiny.experiment(model=model, augment=PLAIN, **fields)


def assert_same_state(state: TrainState, expected: TrainState, tolerance: float) -> None:
    expected_leaves = tiny.leaves_by_name(expected)
    for name, leaf in tiny.leaves_by_name(state).items():
        np.testing.assert_allclose(
            leaf, expected_leaves[name], rtol=tolerance, atol=tolerance, err_msg=name
        )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("devices", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_accumulated_gradients_are_those_of_the_whole_batch(
    devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "STAGES", (dataclasses.replace(tiny.STAGES[0], dropout_rate=0.0),))
    model = {"dtype": "float64", "bn_group": 4}
    whole = run(without_chance(model=model), steps=2)
    parts = run(without_chance(model=model, gradient_accumulation=2), steps=2, devices=devices)
    assert_same_state(parts, whole, 1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_accumulation_without_groups_normalises_each_part_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiny, "STAGES", (dataclasses.replace(tiny.STAGES[0], dropout_rate=0.0),))
    whole = run(without_chance(model={"dtype": "float64"}), steps=1)
    parts = run(without_chance(model={"dtype": "float64"}, gradient_accumulation=4), steps=1)
    kernel = parts.params["classifier"]["kernel"]
    assert not np.allclose(kernel, whole.params["classifier"]["kernel"], rtol=1e-6, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_rematerialisation_changes_no_number() -> None:
    def trained(**fields: Any) -> TrainState:
        model = dataclasses.replace(tiny.MODEL, dtype="float64", **fields)
        return run(tiny.experiment(model=model, augment=PLAIN), steps=2)

    assert_same_state(trained(remat="blocks"), trained(), 1e-10)


def lowered_step(experiment: Experiment) -> Any:
    state, train_step, mesh = start(experiment)
    batch = put_batch(tiny.random_batch(64), mesh)
    key = key_of(experiment.seed)
    return train_step.lower(state, batch, VALUES, key)  # type: ignore[attr-defined]


def test_rematerialisation_computes_blocks_again() -> None:
    # How much memory that saves is the compiler's to say, and the one for CPUs saves none.
    model = dataclasses.replace(tiny.MODEL, remat="blocks")
    again, once = (lowered_step(tiny.experiment(model=m)) for m in (model, tiny.MODEL))
    assert again.cost_analysis()["flops"] > 1.05 * once.cost_analysis()["flops"]
