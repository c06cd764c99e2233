"""Loss functions, per example and in float32, without building one-hot targets."""

from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int


class Loss(Protocol):
    """What every loss function takes."""

    def __call__(
        self,
        logits: Float[Array, "B K"],
        labels: Int[Array, "B L"],
        *,
        label_smoothing: float = 0.0,
        class_weights: Float[Array, " K"] | None = None,
    ) -> Float[Array, " B"]:
        """Loss `[B]` of logits `[B, K]` and labels `[B, L]`; None weighs all classes as 1."""
        ...


def softmax_cross_entropy(
    logits: Float[Array, "B K"],
    labels: Int[Array, "B L"],
    *,
    label_smoothing: float = 0.0,
    class_weights: Float[Array, " K"] | None = None,
) -> Float[Array, " B"]:
    """Softmax cross-entropy; several labels of an example have equal shares, which sum to 1.

    Args:
      logits: `[B, K]`.
      labels: int `[B, L]`, in [0, K) and different, or -1 where an example has fewer. The loss of
        one without labels is 0.
      label_smoothing: s in [0, 1); the target is 1 - s on the labels plus s / K on every class.
      class_weights: `[K]`; an example's loss is multiplied by the mean weight of its labels.

    Returns:
      `[B]`, in nats.
    """
    log_probabilities = jax.nn.log_softmax(logits)
    count = jnp.sum(labels >= 0, axis=1, dtype=logits.dtype)
    of_labels = _sum_over(labels, log_probabilities) / jnp.maximum(count, 1)
    loss = -(1 - label_smoothing) * of_labels
    if label_smoothing:  # Else a class that is left out, of logit -inf, would make it NaN.
        loss -= label_smoothing * log_probabilities.mean(1)
    if class_weights is not None:
        weights = jnp.broadcast_to(class_weights, logits.shape)
        loss *= _sum_over(labels, weights) / jnp.maximum(count, 1)
    return jnp.where(count > 0, loss, 0)


def sigmoid_cross_entropy(
    logits: Float[Array, "B K"],
    labels: Int[Array, "B L"],
    *,
    label_smoothing: float = 0.0,
    class_weights: Float[Array, " K"] | None = None,
) -> Float[Array, " B"]:
    """A yes-or-no cross-entropy for each class, summed over the classes.

    Args:
      logits: `[B, K]`.
      labels: int `[B, L]`, in [0, K) and different, or -1 where an example has fewer.
      label_smoothing: s in [0, 1); the target is 1 - s / 2 for a label and s / 2 for the others.
      class_weights: `[K]`, w in -w t log sigmoid(x) - (1 - t) log sigmoid(-x), the loss of logit x
        and target t.

    Returns:
      `[B]`, in nats.
    """
    # -t log sigmoid(x) - (1 - t) log sigmoid(-x) = softplus(x) - t x, summed with t spelt out.
    spared = logits  # By a target of 1.
    if class_weights is not None:
        spared = jax.nn.softplus(logits) - class_weights * jax.nn.softplus(-logits)
    loss = jax.nn.softplus(logits).sum(1) - (1 - label_smoothing) * _sum_over(labels, spared)
    return loss - label_smoothing / 2 * spared.sum(1) if label_smoothing else loss


def _sum_over(labels: Array, values: Array) -> Array:
    """`[B]`: the sum of each row's values at its labels."""
    at_labels = jnp.take_along_axis(values, jnp.maximum(labels, 0), axis=1)
    return jnp.where(labels >= 0, at_labels, 0).sum(1)


LOSSES: dict[str, Loss] = {"softmax": softmax_cross_entropy, "sigmoid": sigmoid_cross_entropy}
"""By the name in `Experiment.loss`."""


def hits(classes: Int[Array, "B N"], labels: Int[Array, "B L"]) -> Bool[Array, "B N"]:
    """Which classes are among an example's labels.

    Args:
      classes: int `[B, N]`.
      labels: int `[B, L]`, -1 where an example has fewer.

    Returns:
      bool `[B, N]`.
    """
    return (classes[:, :, None] == labels[:, None, :]).any(2)
