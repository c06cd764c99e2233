"""A pretrained backbone inside a Flax module of your own: only the new part is trained.

    python experiments/examples/frozen_backbone.py --model=efficientnetv2-b0 --weights=in1k

Feature maps of three resolutions, pooled and joined, go into one dense layer, which learns the six
kinds of waste of the embedded photographs. The backbone's variables are not part of what is
differentiated, so no gradient is computed for them, and its BatchNorm uses its moving statistics.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from effnetv2_jax import EfficientNet, load_pretrained, preprocess
from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data import open_source


class PooledFeatures(nn.Module):
    """Logits from the means of a backbone's feature maps."""

    backbone: EfficientNet
    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        maps = self.backbone(images, train=False)
        pooled = [maps[f"reduction_{level}"].mean((1, 2)) for level in (3, 4, 5)]
        return nn.Dense(self.num_classes, name="probe")(jnp.concatenate(pooled, axis=-1))


def main(arguments: Sequence[str] | None = None) -> float:
    """Trains the probe, prints and returns its accuracy on held-out photographs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--examples", type=int, default=600)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args(arguments)

    backbone, backbone_variables = load_pretrained(
        options.model, options.weights, features_only=True
    )
    images, labels, classes = pictures("train", options.examples, backbone)
    held_out, held_out_labels, _ = pictures("eval", options.examples, backbone)

    model = PooledFeatures(backbone, num_classes=len(classes))
    fresh = jax.eval_shape(model.init, jax.random.key(0), images[:1])
    frozen = {"batch_stats": {"backbone": backbone_variables["batch_stats"]}}
    probe = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), fresh["params"]["probe"])

    def logits_of(probe: Any, images: jax.Array) -> jax.Array:
        params = {"backbone": backbone_variables["params"], "probe": probe}
        return model.apply({"params": params, **frozen}, images)  # type: ignore[return-value]

    optimizer = optax.adam(1e-3)

    @jax.jit
    def step(probe: Any, state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
        def loss(probe: Any) -> jax.Array:
            logits = logits_of(probe, images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, state = optimizer.update(jax.grad(loss)(probe), state)
        return optax.apply_updates(probe, updates), state

    state, order = optimizer.init(probe), np.random.default_rng(0)
    for _ in range(options.steps):
        rows = order.integers(0, len(images), 16)
        probe, state = step(probe, state, images[rows], labels[rows])

    classify = jax.jit(lambda images: logits_of(probe, images).argmax(1))
    batches = np.array_split(held_out, -(-len(held_out) // 16))
    found = np.concatenate([classify(batch) for batch in batches])
    accuracy = float((found == held_out_labels).mean())
    print(f"{len(held_out)} held-out photographs: {accuracy:.1%} right")
    return accuracy


def pictures(split: Any, count: int, like: EfficientNet) -> tuple[np.ndarray, np.ndarray, Any]:
    """The first of the embedded photographs, their labels, and the names of the classes."""
    source = open_source(DataConfig(), split)
    records = [source[index] for index in range(min(count, len(source)))]
    images = preprocess([record.encoded for record in records], like=like)
    return images, np.array([record.labels[0] for record in records]), source.class_names


if __name__ == "__main__":
    main()
