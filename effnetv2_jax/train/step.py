"""One training step, from uint8 images to the next state, as one compiled program."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh

from effnetv2_jax.augment import augment_batch, mix, normalize
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.models.efficientnet.model import EfficientNet
from effnetv2_jax.ops.losses import LOSSES, hits
from effnetv2_jax.parallel.compiler import compiler_options
from effnetv2_jax.parallel.mesh import replicated
from effnetv2_jax.progressive import Stage
from effnetv2_jax.train.accumulation import mean_over_parts
from effnetv2_jax.train.rates import trainable_part, with_part
from effnetv2_jax.train.state import TrainState, moving_average

Batch = dict[str, jax.Array]
"""`image`: uint8 `[B, H, W, 3]`. `labels`: int32 `[B, L]`, filled up with -1."""
Metrics = dict[str, jax.Array]


class StepSettings(NamedTuple):
    """What changes from step to step and stage to stage without a new compilation: float32."""

    learning_rate: np.float32
    dropout_rate: np.float32
    randaugment_magnitude: np.float32
    mixup_alpha: np.float32
    cutmix_alpha: np.float32


def step_settings(stage: Stage, learning_rate: float) -> StepSettings:
    """The settings of a step in `stage`."""
    return StepSettings(
        learning_rate=np.float32(learning_rate),
        dropout_rate=np.float32(stage.dropout_rate),
        randaugment_magnitude=np.float32(stage.randaugment_magnitude),
        mixup_alpha=np.float32(stage.mixup_alpha),
        cutmix_alpha=np.float32(stage.cutmix_alpha),
    )


class _Part(NamedTuple):
    """What the network and its loss take of the examples; the leading axis of each is theirs."""

    images: jax.Array
    labels: jax.Array
    partners: jax.Array
    weight: jax.Array
    unmixed_labels: jax.Array
    key: jax.Array
    """Of dropout and stochastic depth, for all of the part."""


TrainStep = Callable[[TrainState, Batch, StepSettings], tuple[TrainState, Metrics]]


def make_train_step(
    experiment: Experiment,
    model: EfficientNet,
    optimizer: optax.GradientTransformationExtraArgs,
    mesh: Mesh,
) -> TrainStep:
    """Compiles, on first use per batch shape, a step over all devices of the mesh.

    The state that goes in is donated: it must not be used again. Every random number follows
    from the experiment's seed and the step. A step whose loss or gradient is not finite counts, and
    changes nothing else of the state.
    """
    augment, preprocessing = experiment.augment, model.preprocessing
    mixes = any(stage.mixup_alpha or stage.cutmix_alpha for stage in experiment.stages)

    def train_step(
        state: TrainState, batch: Batch, settings: StepSettings
    ) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(experiment.seed), state.step)
        augment_key, mix_key, dropout_key = jax.random.split(key, 3)

        images, labels = batch["image"], batch["labels"]
        images = augment_batch(
            augment_key,
            images,
            settings.randaugment_magnitude,
            flip=augment.flip,
            policy=augment.policy,
            layers=augment.randaugment_layers,
            contrast_fault=augment.contrast_fault,
            translate_const=augment.translate_pixels,
            cutout_const=augment.cutout_pixels,
            cutout=augment.cutout,
        )
        images = normalize(images, preprocessing.mean, preprocessing.std, model.dtype)
        partners, weight = labels, jnp.ones(labels.shape[:1], jnp.float32)
        if mixes:
            images, labels, partners, weight = mix(
                mix_key,
                images,
                labels,
                mixup_alpha=settings.mixup_alpha,
                cutmix_alpha=settings.cutmix_alpha,
                group=augment.mix_group,
            )

        def loss_of(trained: optax.Params, part: _Part) -> tuple[jax.Array, Any]:
            logits, updated = model.apply(
                {"params": with_part(state.params, trained), "batch_stats": state.batch_stats},
                part.images,
                train=True,
                dropout_rate=settings.dropout_rate,
                rngs={"dropout": part.key},
                mutable=["batch_stats"],
            )

            def loss_against(targets: jax.Array) -> jax.Array:
                loss = LOSSES[experiment.loss]
                return loss(logits, targets, label_smoothing=experiment.label_smoothing)

            losses = loss_against(part.labels)
            if mixes:
                losses = part.weight * losses + (1 - part.weight) * loss_against(part.partners)
            top1 = hits(logits.argmax(1, keepdims=True), part.unmixed_labels).mean()
            return losses.mean(), (updated["batch_stats"], top1)

        trained = trainable_part(state.params, experiment.trainable)
        gradients = functools.partial(jax.value_and_grad(loss_of, has_aux=True), trained)
        whole = _Part(images, labels, partners, weight, batch["labels"], dropout_key)
        (loss, (batch_stats, top1)), grads = mean_over_parts(
            gradients,
            whole,
            parts=experiment.gradient_accumulation,
            group=experiment.model.bn_group or 1,
        )
        metrics = {
            "loss": loss,
            "top1": top1,
            "gradient_norm": optax.tree.norm(grads),
        }

        def advance(state: TrainState, grads: optax.Params, batch_stats: Any) -> TrainState:
            trained = trainable_part(state.params, experiment.trainable)
            updates, opt_state = optimizer.update(
                grads, state.opt_state, trained, learning_rate=settings.learning_rate
            )
            params = with_part(state.params, optax.apply_updates(trained, updates))
            ema = state.ema
            if experiment.ema_decay is not None:
                latest = {"params": params, "batch_stats": batch_stats}
                ema = moving_average(ema, latest, step=state.step, decay=experiment.ema_decay)
            return TrainState(state.step + 1, params, batch_stats, opt_state, ema)

        return unless_diverged(advance, state, grads, batch_stats, metrics=metrics), metrics

    return jax.jit(
        train_step,
        donate_argnums=0,
        out_shardings=replicated(mesh),
        compiler_options=compiler_options(mesh.devices.flat[0]),
    )


def unless_diverged(
    advance: Callable[..., TrainState], state: TrainState, *gradients: Any, metrics: Metrics
) -> TrainState:
    """The next state, or the present one with the next step if loss or gradient is not finite.

    Args:
      advance: from the state and `gradients` to the next state.
    """
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])

    def keep(state: TrainState, *_: Any) -> TrainState:
        return dataclasses.replace(state, step=state.step + 1)

    def branch(*operands: Any) -> TrainState:
        return lax.cond(finite, advance, keep, *operands)

    def select(*operands: Any) -> TrainState:
        choose = functools.partial(jnp.where, finite)
        return jax.tree.map(choose, advance(*operands), keep(*operands))

    # On the CPU a branch spares copies of the state; a TPU gains nothing by it, and a GPU's host
    # would wait for the decision.
    return lax.platform_dependent(state, *gradients, cpu=branch, default=select)
