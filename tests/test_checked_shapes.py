"""In the test run a shape or dtype other than the stated one is an error, traced or not."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from effnetv2_jax.augment import augment_batch, mix, normalize
from effnetv2_jax.ops.batch_norm import group_moments
from effnetv2_jax.ops.conv import conv2d
from effnetv2_jax.ops.losses import softmax_cross_entropy

KEY = jax.random.key(0)
IMAGES = jnp.zeros((2, 4, 4, 3), jnp.uint8)
FEATURES = jnp.zeros((2, 4, 4, 3))
LABELS = jnp.zeros((2, 1), jnp.int32)


@pytest.mark.parametrize(
    "call",
    [
        lambda: conv2d(FEATURES, jnp.zeros((3, 3, 1, 8))),  # of a depthwise kernel, but groups is 1
        lambda: conv2d(FEATURES[0], jnp.zeros((3, 3, 3, 8))),
        lambda: group_moments(FEATURES[0], None),
        lambda: softmax_cross_entropy(jnp.zeros((2, 5)), LABELS[:, 0]),
        lambda: softmax_cross_entropy(jnp.zeros((2, 5)), LABELS[:1]),
        lambda: augment_batch(KEY, IMAGES[0]),
        lambda: augment_batch(KEY, FEATURES),
        lambda: normalize(FEATURES, (0.0,) * 3, (1.0,) * 3),
        lambda: mix(KEY, FEATURES, LABELS[:1], mixup_alpha=1.0, cutmix_alpha=0.0),
    ],
)
@pytest.mark.parametrize("run", [lambda call: call(), jax.eval_shape])
def test_wrong_shapes_and_dtypes_are_refused(
    call: Callable[[], Any], run: Callable[[Callable[[], Any]], Any]
) -> None:
    with pytest.raises(TypeCheckError):
        run(call)
