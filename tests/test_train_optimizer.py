"""Learning rate curves and optimizers against their formulas."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.config.optimizers import OptimizerConfig
from effnetv2_jax.config.schedules import ScheduleConfig
from effnetv2_jax.progressive import Stage, constant, linear
from effnetv2_jax.train.optimizer import kernels, learning_rate, make_optimizer, schedule

IMAGENET = 1_256_144
PARAMS = {
    "conv": {"kernel": jnp.linspace(-1.0, 1.0, 12).reshape(3, 4), "bias": jnp.arange(3.0)},
    "bn": {"scale": jnp.ones(2), "bias": jnp.zeros(2)},
}


def imagenet_rate(step: int) -> float:
    experiment = Experiment(stages=linear(4, image_size=(128, 300)))
    plan = experiment.plan(IMAGENET)
    return learning_rate(experiment, plan, step, num_examples=IMAGENET)


def test_imagenet_learning_rate_around_the_warmup() -> None:
    # 5 epochs of 306.68 steps each: the warm-up ends inside step 1533.
    assert imagenet_rate(0) == 0
    assert imagenet_rate(767) == pytest.approx(0.256 / 2, rel=1e-3)
    assert imagenet_rate(1533) == pytest.approx(0.256, rel=1e-3)
    assert imagenet_rate(1534) == pytest.approx(0.256 * 0.97**2)
    assert imagenet_rate(1534) == pytest.approx(0.2409, abs=5e-5)


def test_imagenet_learning_rate_falls_every_2_4_epochs() -> None:
    # 350 / 2.4 = 145.8 falls.
    assert imagenet_rate(107_335) == pytest.approx(0.256 * 0.97**145)
    third_fall = 3 * 2.4 * IMAGENET / 4096
    assert imagenet_rate(int(third_fall)) == pytest.approx(0.256 * 0.97**2)
    assert imagenet_rate(int(third_fall) + 1) == pytest.approx(0.256 * 0.97**3)


def test_cosine_and_constant_curves() -> None:
    cosine = ScheduleConfig(name="cosine", warmup_epochs=2.0)
    at = [schedule(cosine, epoch, epochs=10.0) for epoch in (0.0, 1.0, 2.0, 6.0, 10.0)]
    assert at == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0])
    flat = ScheduleConfig(name="constant", warmup_epochs=0.0)
    assert [schedule(flat, epoch, epochs=10.0) for epoch in (0.0, 9.9)] == [1.0, 1.0]


def test_learning_rate_follows_the_batch_and_its_curve_the_examples() -> None:
    def curve(*batch_sizes: int) -> list[float]:
        stages = tuple(Stage(image_size=32, batch_size=batch) for batch in batch_sizes)
        experiment = Experiment(
            stages=stages, epochs=8, schedule=ScheduleConfig(name="cosine", warmup_epochs=1.0)
        )
        plan = experiment.plan(1024)
        # At every half epoch, whatever step that is.
        steps = [
            next(s for s in range(plan.total_steps) if plan.examples_before(s) >= 512 * half)
            for half in range(16)
        ]
        return [learning_rate(experiment, plan, step, num_examples=1024) for step in steps]

    same, halved = curve(256, 256), curve(256, 128)
    assert halved[:8] == pytest.approx(same[:8])
    assert halved[8:] == pytest.approx(np.array(same[8:]) / 2)


def test_rmsprop_is_tensorflows() -> None:
    config = OptimizerConfig(l2=0.0)
    optimizer = make_optimizer(config)
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


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_sgd_and_adamw_are_optaxs(name: str) -> None:
    config = OptimizerConfig(name=name, decay=0.99, epsilon=1e-8, l2=0.0)  # type: ignore[arg-type]
    theirs: optax.GradientTransformation = optax.sgd(0.1, momentum=0.9)
    if name == "adamw":
        config = dataclasses.replace(config, weight_decay=0.05)
        theirs = optax.adamw(0.1, b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.05, mask=kernels)
    ours = make_optimizer(config)
    params = {"ours": PARAMS, "theirs": PARAMS}
    states = {"ours": ours.init(PARAMS), "theirs": theirs.init(PARAMS)}
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


def test_only_kernels_decay() -> None:
    assert kernels(PARAMS) == {
        "conv": {"kernel": True, "bias": False},
        "bn": {"scale": False, "bias": False},
    }


def test_l2_adds_the_gradient_of_half_the_squared_kernels() -> None:
    def loss(params: dict) -> jax.Array:
        return jnp.sin(params["conv"]["kernel"]).sum() + params["conv"]["bias"].sum()

    def penalised(params: dict) -> jax.Array:
        return loss(params) + 0.01 * jnp.square(params["conv"]["kernel"]).sum() / 2

    def updates(l2: float, grads: dict) -> dict:
        optimizer = make_optimizer(OptimizerConfig(name="sgd", l2=l2))
        rate = jnp.float32(1.0)
        return optimizer.update(grads, optimizer.init(PARAMS), PARAMS, learning_rate=rate)[0]

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        updates(0.01, jax.grad(loss)(PARAMS)),
        updates(0.0, jax.grad(penalised)(PARAMS)),
    )


def test_gradient_clip_bounds_the_global_norm() -> None:
    optimizer = make_optimizer(OptimizerConfig(name="sgd", l2=0.0, gradient_clip=0.5))
    grads = jax.tree.map(lambda p: jnp.full_like(p, 3.0), PARAMS)
    rate = jnp.float32(1.0)
    updates, _ = optimizer.update(grads, optimizer.init(PARAMS), PARAMS, learning_rate=rate)
    assert jnp.linalg.norm(ravel_pytree(updates)[0]) == pytest.approx(0.5, rel=1e-5)


def test_constant_stage_is_one_stage() -> None:
    (stage,) = constant(image_size=192, dropout_rate=0.2)
    assert (stage.image_size, stage.dropout_rate, stage.share) == (192, 0.2, 1.0)
