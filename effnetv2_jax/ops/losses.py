"""Loss functions, per example and in float32."""

import jax
import jax.numpy as jnp


def smoothed_cross_entropy(
    logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0
) -> jax.Array:
    """Softmax cross-entropy against integer labels, without building one-hot targets.

    Args:
      logits: `[B, K]`.
      labels: int `[B]`, in [0, K).
      label_smoothing: s in [0, 1); the target is 1 - s on the label plus s / K on every class.

    Returns:
      `[B]`, in nats.
    """
    log_probabilities = jax.nn.log_softmax(logits)
    of_label = jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]
    return -(1 - label_smoothing) * of_label - label_smoothing * log_probabilities.mean(1)
