"""One training step, from uint8 images to the next state, as one compiled program."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh
from jax.typing import ArrayLike, DTypeLike

from effnetv2_jax.augment import augment_batch, erase, mix, normalize
from effnetv2_jax.augment.mixing import MixedBatch
from effnetv2_jax.augment.places import Part
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.models.protocol import Model
from effnetv2_jax.ops.losses import LOSSES, hits
from effnetv2_jax.parallel.compiler import compiler_options
from effnetv2_jax.parallel.mesh import replicated
from effnetv2_jax.preprocessing import Preprocessing
from effnetv2_jax.progressive import Stage
from effnetv2_jax.train.accumulation import mean_over_parts
from effnetv2_jax.train.divergence import PARAMS_NORM
from effnetv2_jax.train.rates import trained_params, with_trained
from effnetv2_jax.train.state import TrainState, moving_average

Batch = dict[str, jax.Array]
"""`image`: uint8 `[B, H, W, C]`. `labels`: int32 `[B, L]`, filled up with -1."""
Metrics = dict[str, jax.Array]

StepValues = dict[str, float]
"""What changes from step to step and stage to stage without a new compilation, by name."""


def step_values(stage: Stage, learning_rate: float) -> StepValues:
    """The values of a step in `stage`: as its compiled step takes them, and as they are logged."""
    return {"learning_rate": learning_rate} | stage.traced()


def as_float32(values: Mapping[str, float]) -> dict[str, np.float32]:
    """The values as the compiled step takes them."""
    return {name: np.float32(value) for name, value in values.items()}


class _Examples(NamedTuple):
    """What the network and its loss take; the leading axis of each array is that of examples."""

    images: jax.Array
    labels: jax.Array
    partners: jax.Array
    weight: jax.Array
    unmixed_labels: jax.Array
    key: jax.Array
    """Of dropout and stochastic depth, for all of the examples."""


class StepKeys(NamedTuple):
    """What is random in a step."""

    augment: jax.Array
    mix: jax.Array
    dropout: jax.Array
    """And of stochastic depth."""
    step: jax.Array
    """That the others are from; folded with 3 it is that of erasing, which came later."""


def keys_of_step(key: jax.Array, step: ArrayLike) -> StepKeys:
    """The keys of step `step`, from a run's, which `key_of` returns."""
    key = jax.random.fold_in(jax.random.wrap_key_data(key), step)
    augment, mix, dropout = jax.random.split(key, 3)
    return StepKeys(augment, mix, dropout, key)


def network_input(
    experiment: Experiment,
    preprocessing: Preprocessing,
    dtype: DTypeLike,
    batch: Mapping[str, jax.Array],
    values: Mapping[str, jax.Array],
    keys: StepKeys,
    *,
    part: Part | None = None,
) -> MixedBatch:
    """A batch as the network sees it in training: augmented, normalised, erased and mixed.

    Args:
      preprocessing: of it, mean and deviation.
      dtype: of the images.
      batch: `image` uint8 `[B, H, W, 3]`, `labels` int32 `[B, L]`.
      values: of `step_values`.
      part: which of a step's batch they are, with the partners of all of them; None is all of it.
    """
    augment = experiment.augment
    images, labels = batch["image"], batch["labels"]
    images = augment_batch(
        keys.augment,
        images,
        values["randaugment_magnitude"],
        flip=augment.flip,
        policy=augment.policy,
        layers=augment.randaugment_layers,
        deviation=augment.randaugment_deviation,
        contrast_fault=augment.contrast_fault,
        translate_const=augment.translate_pixels,
        cutout_const=augment.cutout_pixels,
        cutout=augment.cutout,
        part=part,
    )
    images = normalize(images, preprocessing.mean, preprocessing.std, dtype)
    if augment.erasing:
        key = jax.random.fold_in(keys.step, 3)
        images = erase(key, images, probability=augment.erasing, part=part)
    if not _mixes(experiment):
        return MixedBatch(images, labels, labels, jnp.ones(labels.shape[:1], jnp.float32))
    return mix(
        keys.mix,
        images,
        labels,
        mixup_alpha=values["mixup_alpha"],
        cutmix_alpha=values["cutmix_alpha"],
        group=augment.mix_group if part is None else None,
        per_batch=augment.mix_per_batch,
        part=part,
    )


def _mixes(experiment: Experiment) -> bool:
    return any(stage.mixup_alpha or stage.cutmix_alpha for stage in experiment.stages)


TrainStep = Callable[
    [TrainState, Batch, Mapping[str, np.float32], np.ndarray], tuple[TrainState, Metrics]
]
"""Takes the values as `as_float32` returns them, and the key as `key_of` does."""


def make_train_step(
    experiment: Experiment,
    model: Model,
    optimizer: optax.GradientTransformationExtraArgs,
    mesh: Mesh,
    class_weights: Sequence[float] | None = None,
) -> TrainStep:
    """Compiles, on first use per batch shape, a step over all devices of the mesh.

    The state that goes in is donated: it must not be used again. Every random number follows
    from the run's key and the step. A step whose loss or gradient is not finite counts, and
    changes nothing else of the state.

    Args:
      class_weights: see `train.balance`. With them it is the metric `weighted_loss`
        that the gradient is of, beside the `loss` without.
    """
    weights = None if class_weights is None else np.array(class_weights, np.float32)
    has_top1 = experiment.evaluation.metric == "accuracy"
    mixes = _mixes(experiment)

    def train_step(
        state: TrainState, batch: Batch, values: Mapping[str, jax.Array], key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        keys = keys_of_step(key, state.step)
        images, labels, partners, weight = network_input(
            experiment, model.preprocessing, model.dtype, batch, values, keys
        )
        # Without a schedule stochastic depth is the model's own, and compiled in.
        of_model = ("dropout_rate", "stochastic_depth_rate")
        rates = {name: values[name] for name in of_model if name in values}

        def loss_of(trained: optax.Params, examples: _Examples) -> tuple[jax.Array, Any]:
            logits, collections = model.apply(
                {"params": with_trained(state.params, trained), **state.collections},
                examples.images,
                train=True,
                **rates,
                rngs={"dropout": examples.key},
                mutable=list(state.collections),
            )

            def mean_loss(class_weights: np.ndarray | None) -> jax.Array:
                def loss_against(targets: jax.Array) -> jax.Array:
                    return LOSSES[experiment.loss](
                        logits,
                        targets,
                        label_smoothing=experiment.label_smoothing,
                        class_weights=None if class_weights is None else jnp.array(class_weights),
                    )

                losses = loss_against(examples.labels)
                if mixes:
                    losses = examples.weight * losses + (1 - examples.weight) * loss_against(
                        examples.partners
                    )
                return losses.mean()

            loss = mean_loss(weights)
            measured = {"loss": loss}
            if weights is not None:
                measured = {"loss": mean_loss(None), "weighted_loss": loss}
            if has_top1:
                best = logits.argmax(1, keepdims=True)
                measured["top1"] = hits(best, examples.unmixed_labels).mean()
            return loss, (collections, measured)

        trained = trained_params(state.params, experiment.rates)
        gradients = functools.partial(jax.value_and_grad(loss_of, has_aux=True), trained)
        (_, (collections, metrics)), grads = mean_over_parts(
            gradients,
            _Examples(images, labels, partners, weight, batch["labels"], keys.dropout),
            parts=experiment.gradient_accumulation,
            group=experiment.model.example_group,
        )
        metrics |= {"gradient_norm": optax.tree.norm(grads)}

        def advance(
            state: TrainState, grads: optax.Params, collections: dict[str, Any]
        ) -> TrainState:
            trained = trained_params(state.params, experiment.rates)
            updates, opt_state = optimizer.update(
                grads, state.opt_state, trained, learning_rate=values["learning_rate"]
            )
            params = with_trained(state.params, optax.apply_updates(trained, updates))
            ema = state.ema
            if experiment.ema_decay is not None:
                latest = {"params": params, **collections}
                ema = moving_average(ema, latest, step=state.step, decay=experiment.ema_decay)
            return TrainState(state.step + 1, params, collections, opt_state, ema)

        state = unless_diverged(advance, state, grads, collections, metrics=metrics)
        return state, metrics | {PARAMS_NORM: optax.tree.norm(state.params)}

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
