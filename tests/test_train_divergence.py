"""Steps that diverge are noticed at a fixed distance, and leave the state as it was."""

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from effnetv2_jax.config import CheckpointConfig, FaultsConfig
from effnetv2_jax.outputs.checkpoints import Checkpoints
from effnetv2_jax.parallel.mesh import make_mesh, put_batch
from effnetv2_jax.train import loop
from effnetv2_jax.train.divergence import LAG, Divergence, DivergenceError, LossWatch, Spike
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.state import build_model, create_state, key_of
from effnetv2_jax.train.step import as_float32, make_train_step, step_values


def found_at(
    losses: list[float],
    *,
    norms: dict[int, float] | None = None,
    updates: dict[int, float] | None = None,
) -> dict[int, list[Divergence | Spike]]:
    """What a watch finds when it is given step after step, by the step at which it does."""
    watch = LossWatch(3.0)
    found = {}
    for done, loss in enumerate(losses, start=1):
        norm = (norms or {}).get(done, 1.0)
        metrics = {"loss": jnp.float32(loss), "gradient_norm": jnp.float32(norm)}
        metrics["params_norm"] = jnp.float32((updates or {}).get(done, 1.0))
        found[done] = list(watch.step(done, metrics))
    found[len(losses) + 1] = list(watch.flush())
    return {step: events for step, events in found.items() if events}


@given(
    st.integers(1, 30),
    st.sampled_from([math.nan, math.inf, -math.inf]),
    st.sampled_from(["loss", "gradient", "update"]),
)
def test_what_is_not_finite_is_found_two_steps_later(step: int, value: float, what: str) -> None:
    losses, at = [1.0] * 30, {step: value}
    if what == "loss":
        losses[step - 1] = value
    found = found_at(
        losses, norms=at if what == "gradient" else {}, updates=at if what == "update" else {}
    )
    ((when, (event,)),) = found.items()
    assert when == min(step + LAG, 31)
    assert isinstance(event, Divergence)
    assert event.done == step
    assert ("norm of its parameters" in str(event)) == (what == "update")


def test_a_loss_that_spikes_is_found_and_a_slow_rise_is_not() -> None:
    falling = [7.0 * 0.9**step for step in range(40)]
    spiking = [*falling, 5.0, *falling[-1:] * 5]
    ((when, (event,)),) = found_at(spiking).items()
    assert isinstance(event, Spike)
    assert (event.done, when) == (41, 41 + LAG)
    assert event.mean < 5.0 / 3
    assert not found_at([1.02**step for step in range(200)])
    assert not found_at([1.0] * 10 + [100.0]), "too early to say what is usual"


def test_forgotten_steps_are_not_found() -> None:
    watch = LossWatch(3.0)
    nan = {"loss": jnp.float32(math.nan)}
    nan |= dict.fromkeys(["gradient_norm", "params_norm"], jnp.float32(1))
    assert not list(watch.step(1, nan))
    watch.forget()
    assert not list(watch.flush())


@pytest.mark.usefixtures("quick_compilation")
def test_a_step_that_is_not_finite_changes_nothing_but_its_number() -> None:
    experiment = tiny.experiment()
    model, mesh = build_model(experiment, 6), make_mesh(jax.devices()[:1])
    optimizer = make_optimizer(experiment)
    step = make_train_step(experiment, model, optimizer, mesh)
    state = create_state(experiment, model, optimizer, mesh)
    batch = put_batch(tiny.random_batch(32), mesh)
    arguments = as_float32(step_values(experiment.stages[0], 0.01)), key_of(experiment.seed)

    sound, metrics = step(jax.tree.map(jnp.copy, state), batch, *arguments)
    assert np.isfinite(metrics["loss"])
    assert not np.array_equal(*(jax.tree.leaves(s.params)[0] for s in (state, sound)))

    # Statistics that overflow are a way to a loss that is not a number.
    kernel = sound.params["stem"]["conv"]["kernel"]
    huge = sound.params | {"stem": sound.params["stem"] | {"conv": {"kernel": kernel * 1e30}}}
    overflowing = dataclasses.replace(sound, params=huge)
    before = jax.tree.map(jnp.copy, overflowing)
    after, metrics = step(overflowing, batch, *arguments)
    assert not (np.isfinite(metrics["loss"]) and np.isfinite(metrics["gradient_norm"]))
    assert int(after.step) == int(before.step) + 1
    kept = tiny.leaves_by_name(before.replace(step=after.step))
    for name, leaf in tiny.leaves_by_name(after).items():
        np.testing.assert_array_equal(leaf, kept[name], err_msg=name)

    # A learning rate that overflows is a way to parameters that are not, after a sound gradient.
    overflows = as_float32(step_values(experiment.stages[0], 3e38))
    _, metrics = step(state, batch, overflows, arguments[1])
    assert np.isfinite(metrics["loss"])
    assert np.isfinite(metrics["gradient_norm"])
    assert not np.isfinite(metrics["params_norm"])


@pytest.mark.parametrize("policy", ["halt", "skip", "roll_back"])
def test_no_checkpoint_holds_what_is_not_finite(policy: Any, tmp_path: Path) -> None:
    saved = SimpleNamespace(latest_step=lambda: 4)
    logged: list[str] = []
    run: Any = SimpleNamespace(
        state=SimpleNamespace(
            to_dict=lambda: {"batch_stats": {"var": np.array([1, np.inf], np.float32)}}
        ),
        done=7,
        divergences=0,
        checkpoints=saved,
        experiment=tiny.experiment(faults=FaultsConfig(on_divergence=policy)),
        log=lambda event, message, **_: logged.append(message),
        examples_of=lambda _: [],
    )
    with pytest.raises(loop._RollBack if policy == "roll_back" else DivergenceError) as raised:
        loop._check_state(run)
    assert logged == ["after step 7 batch_stats/var is not finite"]
    if policy != "roll_back":
        assert "The newest checkpoint, of step 4, is sound" in str(raised.value)
    run.state = SimpleNamespace(to_dict=lambda: {"step": np.int32(1), "params": np.ones(3)})
    loop._check_state(run)


@pytest.mark.parametrize("policy", ["halt", "skip", "roll_back"])
def test_parameters_that_are_not_finite_cannot_be_skipped(policy: Any) -> None:
    run: Any = SimpleNamespace(
        divergences=0,
        checkpoints=SimpleNamespace(latest_step=lambda: None),
        experiment=tiny.experiment(faults=FaultsConfig(on_divergence=policy)),
        log=lambda *_, **__: None,
        examples_of=lambda _: [],
    )
    event = Divergence(done=3, loss=1.0, gradient_norm=2.0, params_norm=math.inf)
    with pytest.raises(loop._RollBack if policy == "roll_back" else DivergenceError) as raised:
        loop._handle(run, [event])
    assert policy == "roll_back" or "norm of its parameters inf" in str(raised.value)
    assert ("cannot be skipped" in str(raised.value)) == (policy == "skip")


def test_a_checkpoint_that_is_not_finite_is_passed_over(tmp_path: Path) -> None:
    broken: list[str] = []
    with Checkpoints(tmp_path / "checkpoints", CheckpointConfig()) as checkpoints:
        for step, value in ((1, 1.0), (2, math.nan)):
            checkpoints.save(step, {"params": {"kernel": jnp.full(3, value)}})
        like = {"params": {"kernel": jnp.zeros(3)}}
        step, _ = checkpoints.restore_newest(like, report=broken.append)
    assert step == 1
    assert "params/kernel in it is not finite" in broken[0]
