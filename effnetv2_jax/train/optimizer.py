"""Optimizers: from gradients to updates, as the config says."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.flatten_util import ravel_pytree

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.config.optimizers import LAMB, SGD, AdamW, Lion, OptimizerConfig, RMSProp
from effnetv2_jax.models.registry import family_of
from effnetv2_jax.train.rates import factors

Mask = Callable[[optax.Params], Any]
"""From parameters to a tree of booleans."""


def make_optimizer(experiment: Experiment) -> optax.GradientTransformationExtraArgs:
    """The optimizer of what a run trains; `update` takes the `learning_rate` as a keyword argument.

    What decays is for the model's family to say. Factors of `experiment.rates` scale the updates;
    parameters whose factor is 0 must not be among those it is given.
    """
    config = experiment.optimizer
    chain: list[optax.GradientTransformation] = []
    if config.gradient_clip is not None:
        chain.append(optax.clip_by_global_norm(config.gradient_clip))
    chain += _updates(config, _those_that(family_of(experiment.model.name).decays))
    # Last, and linear in the rate: the momentum of scaled updates is the scaled momentum.
    for factor in dict.fromkeys(factor for _, factor in experiment.rates if factor not in (0, 1)):
        chain.append(optax.masked(optax.scale(factor), _whose_factor_is(factor, experiment)))
    return optax.chain(*chain)


def _updates(config: OptimizerConfig, decays: Mask) -> list[optax.GradientTransformation]:
    """From gradients to updates; of every optimizer, one after the other.

    RMSProp is TensorFlow's: epsilon inside the square root, squared gradients averaged from 1, and
    the learning rate inside the momentum, so that updates already under way keep the rate they
    were made with.
    """
    rate = _scale_by_learning_rate()
    match config:
        case SGD():
            momentum = optax.trace(decay=config.momentum, nesterov=config.nesterov)
            return [*_l2(config.l2, decays), _apply(rate, momentum)]
        case RMSProp():
            rms = optax.scale_by_rms(
                decay=config.decay, eps=config.epsilon, initial_scale=1.0, eps_in_sqrt=True
            )
            momentum = optax.trace(decay=config.momentum)
            return [*_l2(config.l2, decays), _apply(rms, rate, momentum)]
        case AdamW():
            adam = optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.epsilon)
            decay = optax.add_decayed_weights(config.weight_decay, mask=decays)
            return [_apply(adam), decay, rate]
        case LAMB():
            adam = optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.epsilon)
            decay = optax.add_decayed_weights(config.weight_decay, mask=decays)
            return [_apply(adam), decay, optax.scale_by_trust_ratio(), rate]
        case Lion():
            lion = optax.scale_by_lion(b1=config.beta1, b2=config.beta2)
            decay = optax.add_decayed_weights(config.weight_decay, mask=decays)
            return [_apply(lion), decay, rate]
        case _:
            raise TypeError(f"there is no optimizer for a {type(config).__name__}")


def _l2(coefficient: float, decays: Mask) -> list[optax.GradientTransformation]:
    return [optax.add_decayed_weights(coefficient, mask=decays)] if coefficient else []


def _apply(*steps: optax.GradientTransformation) -> optax.GradientTransformation:
    """Applies elementwise steps to all vectors as one vector, and to other arrays one by one.

    Vectors (biases, BatchNorm's parameters) are most of a network's arrays, and compile faster as
    one; kernels are most of its bytes, and on TPU the copies into one vector and back were a tenth
    of a step's memory traffic.
    """
    chain = optax.chain(*steps)
    return optax.chain(
        optax.masked(_as_one_vector(chain), _is_vector), optax.masked(chain, _is_no_vector)
    )


def _as_one_vector(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """As `optax.flatten`, which cannot do without any parameters."""
    apply = optax.with_extra_args_support(inner)

    def init(params: optax.Params) -> optax.OptState:
        return apply.init(ravel_pytree(params)[0])

    def update(
        updates: optax.Updates, state: optax.OptState, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        vector, restore = ravel_pytree(updates)
        vector, state = apply.update(vector, state, **extra)
        return restore(vector), state

    return optax.GradientTransformationExtraArgs(init, update)


def _is_vector(params: optax.Params) -> optax.Params:
    return jax.tree.map(lambda leaf: leaf.ndim == 1, params)


def _is_no_vector(params: optax.Params) -> optax.Params:
    return jax.tree.map(lambda leaf: leaf.ndim != 1, params)


def _those_that(holds: Callable[[tuple[str, ...]], bool]) -> Mask:
    """A tree of what holds of each parameter's path."""

    def of(path: tuple[jax.tree_util.DictKey, ...], _: jax.Array) -> bool:
        return holds(tuple(key.key for key in path))

    return lambda params: jax.tree_util.tree_map_with_path(of, params)


def _whose_factor_is(factor: float, experiment: Experiment) -> Mask:
    return lambda params: jax.tree.map(lambda own: own == factor, factors(params, experiment.rates))


def _scale_by_learning_rate() -> optax.GradientTransformationExtraArgs:
    """Multiplies by minus the `learning_rate` given to `update`.

    The rate comes from the host, which computes it in double precision from the examples seen.
    """

    def update(updates, state, params=None, *, learning_rate, **_):  # type: ignore[no-untyped-def]
        return jax.tree.map(lambda u: -learning_rate.astype(u.dtype) * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
