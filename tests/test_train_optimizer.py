"""Optimizers against their formulas and optax's own."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from jax.flatten_util import ravel_pytree

from effnetv2_jax.config import LAMB, SGD, AdamW, Lion, RMSProp
from effnetv2_jax.config.optimizers import OPTIMIZERS, OptimizerConfig
from effnetv2_jax.outputs.state_checksum import named_leaves
from effnetv2_jax.train.optimizer import make_optimizer

PARAMS = {
    "conv": {"kernel": jnp.linspace(-1.0, 1.0, 12).reshape(3, 4), "bias": jnp.arange(3.0)},
    "bn": {"scale": jnp.ones(2), "bias": jnp.zeros(2)},
}
KERNELS = {
    "conv": {"kernel": True, "bias": False},
    "bn": {"scale": False, "bias": False},
}
"""What decays."""


def optimizer_of(config: OptimizerConfig, **fields: Any) -> optax.GradientTransformationExtraArgs:
    return make_optimizer(tiny.experiment(optimizer=config, **fields))


def test_rmsprop_is_tensorflows() -> None:
    optimizer = optimizer_of(dataclasses.replace(tiny.OPTIMIZER, l2=0.0))
    params = {"kernel": jnp.array([1.0, -2.0, 0.5])}
    state = optimizer.init(params)
    expected = np.array([1.0, -2.0, 0.5])
    mean_square, momentum = np.ones(3), np.zeros(3)
    rng = np.random.default_rng(0)
    for step in range(20):
        gradient, rate = rng.normal(size=3), 0.01 * (step + 1)
        updates, state = optimizer.update(
            {"kernel": jnp.asarray(gradient, jnp.float32)},
            state,
            params,
            learning_rate=jnp.float32(rate),
        )
        params = optax.apply_updates(params, updates)
        mean_square = 0.9 * mean_square + 0.1 * gradient**2
        momentum = 0.9 * momentum + rate * gradient / np.sqrt(mean_square + 1e-3)
        expected = expected - momentum
        np.testing.assert_allclose(params["kernel"], expected, rtol=1e-5, atol=1e-6)


OPTAXS = [
    (SGD(learning_rate=1.0), optax.sgd(0.1)),
    (SGD(learning_rate=1.0, momentum=0.9), optax.sgd(0.1, momentum=0.9)),
    (
        SGD(learning_rate=1.0, momentum=0.9, nesterov=True),
        optax.sgd(0.1, momentum=0.9, nesterov=True),
    ),
    (
        RMSProp(learning_rate=1.0, decay=0.99, momentum=0.8, epsilon=1e-4),
        optax.rmsprop(0.1, decay=0.99, eps=1e-4, initial_scale=1.0, eps_in_sqrt=True, momentum=0.8),
    ),
    (
        AdamW(learning_rate=1.0, beta2=0.99, weight_decay=0.05),
        optax.adamw(0.1, b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.05, mask=KERNELS),
    ),
    (LAMB(learning_rate=1.0), optax.lamb(0.1)),
    (
        LAMB(learning_rate=1.0, beta1=0.8, beta2=0.99, epsilon=1e-5, weight_decay=0.05),
        optax.lamb(0.1, b1=0.8, b2=0.99, eps=1e-5, weight_decay=0.05, mask=KERNELS),
    ),
    (
        Lion(learning_rate=1.0, beta1=0.8, weight_decay=0.05),
        optax.lion(0.1, b1=0.8, b2=0.99, weight_decay=0.05, mask=KERNELS),
    ),
]


@pytest.mark.parametrize(("config", "theirs"), OPTAXS)
def test_optimizers_are_optaxs(config: OptimizerConfig, theirs: Any) -> None:
    ours = optimizer_of(config)
    params = {"ours": PARAMS, "theirs": PARAMS}
    states: dict[str, Any] = {"ours": ours.init(PARAMS), "theirs": theirs.init(PARAMS)}
    for step in range(5):
        grads = jax.tree.map(lambda p, step=step: jnp.cos(p + step), PARAMS)
        updates, states["ours"] = ours.update(
            grads, states["ours"], params["ours"], learning_rate=jnp.float32(0.1)
        )
        params["ours"] = optax.apply_updates(params["ours"], updates)
        updates, states["theirs"] = theirs.update(grads, states["theirs"], params["theirs"])
        params["theirs"] = optax.apply_updates(params["theirs"], updates)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
        params["ours"],
        params["theirs"],
    )


def test_all_optimizers_are_compared() -> None:
    assert {type(config) for config, _ in OPTAXS} == set(OPTIMIZERS.values())


def updates_of(config: OptimizerConfig, grads: Any, params: Any = PARAMS, **fields: Any) -> Any:
    """The first step's, at a learning rate of 1."""
    optimizer = optimizer_of(config, **fields)
    rate = jnp.float32(1.0)
    return optimizer.update(grads, optimizer.init(params), params, learning_rate=rate)[0]


def test_only_what_the_family_says_decays() -> None:
    still = jax.tree.map(jnp.zeros_like, PARAMS)
    decayed = updates_of(AdamW(learning_rate=1.0, weight_decay=0.5), still)
    assert jax.tree.map(lambda leaf: bool(leaf.any()), decayed) == KERNELS


def test_l2_adds_the_gradient_of_half_the_squared_kernels() -> None:
    def loss(params: dict) -> jax.Array:
        return jnp.sin(params["conv"]["kernel"]).sum() + params["conv"]["bias"].sum()

    def penalised(params: dict) -> jax.Array:
        return loss(params) + 0.01 * jnp.square(params["conv"]["kernel"]).sum() / 2

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        updates_of(SGD(learning_rate=1.0, l2=0.01), jax.grad(loss)(PARAMS)),
        updates_of(SGD(learning_rate=1.0), jax.grad(penalised)(PARAMS)),
    )


def test_gradient_clip_bounds_the_global_norm() -> None:
    grads = jax.tree.map(lambda p: jnp.full_like(p, 3.0), PARAMS)
    updates = updates_of(SGD(learning_rate=1.0, gradient_clip=0.5), grads)
    assert jnp.linalg.norm(ravel_pytree(updates)[0]) == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("kind", OPTIMIZERS.values())
def test_factors_scale_the_updates_of_what_they_match(kind: Any) -> None:
    config = kind(learning_rate=1.0)
    rates = (("conv/bias", 3.0), ("conv", 0.5), ("scale", 3.0))

    def last_updates(**fields: Any) -> Any:
        optimizer = optimizer_of(config, **fields)
        state: Any = optimizer.init(PARAMS)
        for scale in (1.0, -0.5, 0.25):
            grads = jax.tree.map(lambda leaf, scale=scale: scale * jnp.cos(leaf), PARAMS)
            found, state = optimizer.update(grads, state, PARAMS, learning_rate=jnp.float32(0.1))
        return found

    usual, own = last_updates(), last_updates(rates=rates)
    expected = {
        "conv": {"kernel": 0.5, "bias": 3.0},
        "bn": {"scale": 3.0, "bias": 1.0},
    }
    jax.tree.map(
        lambda a, b, factor: np.testing.assert_allclose(a, factor * b, rtol=1e-5),
        own,
        usual,
        expected,
    )


ON_DISK: list[tuple[OptimizerConfig, str]] = [
    (
        RMSProp(learning_rate=1.0, l2=1e-5),
        """1/0/inner_state/0/nu 1/0/inner_state/2/trace
        1/1/inner_state/0/nu/conv/kernel 1/1/inner_state/2/trace/conv/kernel""",
    ),
    (
        SGD(learning_rate=1.0),
        "0/0/inner_state/1/trace 0/1/inner_state/1/trace/conv/kernel",
    ),
    (
        AdamW(learning_rate=1.0, weight_decay=0.05),
        """0/0/inner_state/0/count 0/0/inner_state/0/mu 0/0/inner_state/0/nu
        0/1/inner_state/0/count
        0/1/inner_state/0/mu/conv/kernel 0/1/inner_state/0/nu/conv/kernel""",
    ),
]


@pytest.mark.parametrize(("config", "expected"), ON_DISK)
@pytest.mark.parametrize("rates", [(), (("conv", 10.0),)])
def test_states_have_the_names_that_earlier_runs_saved(
    config: OptimizerConfig, expected: str, rates: Any
) -> None:
    state = optimizer_of(config, rates=rates).init(PARAMS)
    assert ["/".join(path) for path in named_leaves(state)] == expected.split()
    clipping = dataclasses.replace(config, gradient_clip=1.0)
    shifted = optimizer_of(clipping, rates=rates).init(PARAMS)
    first = int(expected[0][0]) + 1
    assert {path[0] for path in named_leaves(shifted)} == {str(first)}
