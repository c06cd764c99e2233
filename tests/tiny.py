"""The smallest run that goes through everything, for tests of the training program."""

import dataclasses
from typing import Any

import jax
import numpy as np

from effnetv2_jax.config import (
    AugmentConfig,
    CheckpointConfig,
    Cosine,
    DataConfig,
    EvaluationConfig,
    Experiment,
    LogConfig,
    RMSProp,
)
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.models.efficientnet.variants import StageSpec
from effnetv2_jax.progressive import Stage

BATCH = 16
STAGES = (
    Stage(image_size=32, dropout_rate=0.1, randaugment_magnitude=5.0, mixup_alpha=0.2),
    Stage(image_size=40, dropout_rate=0.3, randaugment_magnitude=15.0, mixup_alpha=0.4),
)
MODEL = EfficientNetConfig(
    name="efficientnetv2-b0",
    stages=(
        StageSpec("fused", kernel=3, stride=2, expand=4, outputs=8, repeats=1, se_ratio=0),
        StageSpec("mbconv", kernel=3, stride=1, expand=4, outputs=8, repeats=1, se_ratio=0.25),
    ),
    stem=8,
    head=64,
    dtype="float32",
)
"""A block of each kind, the second with a residual: programs that compile fast."""
NAMED = EfficientNetConfig(name="efficientnetv2-b0", width=0.1, depth=0.1, dtype="float32")
"""Six blocks, one of each stage: that of `random_weights.thin`."""
OPTIMIZER = RMSProp(learning_rate=0.016, decay=0.9, momentum=0.9, epsilon=1e-3, l2=1e-5)


def experiment(*, steps: int = 8, **fields: Any) -> Experiment:
    """Two stages of `steps / 2` steps each on the embedded pictures; `fields` override."""
    run = Experiment(
        stages=STAGES,
        batch_size=BATCH,
        epochs=steps * BATCH / 2016,
        model=MODEL,
        data=DataConfig(
            source="embedded",
            eval_split="test[:40]",
            threads=2,
            interpolation="bilinear",
            mean=(128.0, 128.0, 128.0),
            std=(128.0, 128.0, 128.0),
        ),
        augment=AugmentConfig(mix_group=8),
        optimizer=OPTIMIZER,
        schedule=Cosine(),
        evaluation=EvaluationConfig(image_size=40, batch_size=16, every_epochs=100.0),
        checkpoint=CheckpointConfig(every_steps=3),
        log=LogConfig(every_steps=1, tensorboard=False, report=False),
    )
    return dataclasses.replace(run, **fields)


def random_batch(
    size: int, *, count: int = BATCH, seed: int = 0, classes: int = 6
) -> dict[str, np.ndarray]:
    """A host batch of noise."""
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        "labels": rng.integers(0, classes, (count, 1), dtype=np.int32),
    }


def leaves_by_name(tree: Any) -> dict[str, np.ndarray]:
    """Leaves as NumPy arrays under their path."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
