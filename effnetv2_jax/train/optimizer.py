"""Optimizers, and the learning rate as a function of the examples seen."""

import math
from typing import Any

import jax
import optax
from jax.flatten_util import ravel_pytree

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.config.optimizers import OptimizerConfig
from effnetv2_jax.config.schedules import ScheduleConfig
from effnetv2_jax.progressive import Plan

REFERENCE_BATCH = 256
"""`OptimizerConfig.learning_rate` is stated for this many examples per step."""


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """The optimizer; its `update` takes the step's `learning_rate` as a keyword argument.

    RMSProp is TensorFlow's: epsilon inside the square root, squared gradients averaged from 1, and
    the learning rate inside the momentum, so that updates already under way keep the rate they
    were made with.
    """
    chain: list[optax.GradientTransformation] = []
    if config.gradient_clip is not None:
        chain.append(optax.clip_by_global_norm(config.gradient_clip))
    if config.l2:
        chain.append(optax.add_decayed_weights(config.l2, mask=kernels))
    match config.name:
        case "rmsprop":
            rms = optax.scale_by_rms(
                decay=config.decay, eps=config.epsilon, initial_scale=1.0, eps_in_sqrt=True
            )
            momentum = optax.trace(decay=config.momentum)
            chain.append(_apply(rms, _scale_by_learning_rate(), momentum))
        case "sgd":
            chain.append(_apply(_scale_by_learning_rate(), optax.trace(decay=config.momentum)))
        case "adamw":
            adam = optax.scale_by_adam(b1=config.momentum, b2=config.decay, eps=config.epsilon)
            decay = optax.add_decayed_weights(config.weight_decay, mask=kernels)
            chain += [_apply(adam), decay, _scale_by_learning_rate()]
    if config.classifier_learning_rate is not None:
        # Last, and linear in the rate: the momentum of scaled updates is the scaled momentum.
        share = config.classifier_learning_rate / config.learning_rate
        chain.append(optax.masked(optax.scale(share), _is_classifier))
    return optax.chain(*chain)


def _apply(*steps: optax.GradientTransformation) -> optax.GradientTransformation:
    """Works on all biases and BatchNorm parameters as one vector, and on kernels one by one.

    Small arrays are most of a network's, and compile faster as one; kernels are most of its bytes,
    and on TPU the copies into one vector and back were a tenth of a step's memory traffic.
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


def kernels(params: optax.Params) -> optax.Params:
    """A tree of booleans: True for the kernels, which decay; False for biases and BatchNorm."""

    def is_kernel(path: tuple[jax.tree_util.DictKey, ...], _: jax.Array) -> bool:
        return path[-1].key == "kernel"

    return jax.tree_util.tree_map_with_path(is_kernel, params)


def _is_classifier(params: optax.Params) -> optax.Params:
    if "classifier" not in params:
        raise ConfigError(
            "config.optimizer.classifier_learning_rate is set, but config.trainable leaves the "
            "classifier out; set the former to None, or include the classifier in the latter"
        )
    return {
        module: jax.tree.map(lambda _: module == "classifier", leaves)  # noqa: B023
        for module, leaves in params.items()
    }


def learning_rate(experiment: Experiment, plan: Plan, step: int, *, num_examples: int) -> float:
    """The learning rate of step `step`, counted from 0.

    The curve counts examples, so it does not depend on how stages divide them into batches; its
    height is proportional to the present stage's batch.

    Args:
      num_examples: in the training set.
    """
    batch = plan.stage_at(step).batch_size
    peak = experiment.optimizer.learning_rate * batch / REFERENCE_BATCH
    epoch = plan.examples_before(step) / num_examples
    return peak * schedule(experiment.schedule, epoch, epochs=experiment.epochs)


def schedule(config: ScheduleConfig, epoch: float, *, epochs: float) -> float:
    """The share of the peak learning rate at `epoch` of `epochs`, both fractional."""
    if epoch < config.warmup_epochs:
        return epoch / config.warmup_epochs
    match config.name:
        case "exponential":
            return config.decay_rate ** math.floor(epoch / config.decay_epochs)
        case "cosine":
            progress = (epoch - config.warmup_epochs) / max(epochs - config.warmup_epochs, 1e-9)
            return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        case "constant":
            return 1.0


def _scale_by_learning_rate() -> optax.GradientTransformationExtraArgs:
    """Multiplies by minus the `learning_rate` given to `update`.

    The rate comes from the host, which computes it in double precision from the examples seen.
    """

    def update(updates, state, params=None, *, learning_rate, **_):  # type: ignore[no-untyped-def]
        return jax.tree.map(lambda u: -learning_rate.astype(u.dtype) * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
