"""A run of four stages whose steps take milliseconds, to be disturbed."""

import tiny

from effnetv2_jax.config.experiment import (
    AugmentConfig,
    CheckpointConfig,
    EvaluationConfig,
    Experiment,
)
from effnetv2_jax.progressive import Stage, linear

BATCH = 4


def four_stages(*, steps: int, every_steps: int) -> Experiment:
    """So many steps on the embedded pictures, evaluated seven times.

    Args:
      every_steps: between two checkpoints.
    """
    epochs = steps * BATCH / 2016
    return tiny.experiment(
        stages=linear(
            first=Stage(image_size=32, dropout_rate=0.1, mixup_alpha=0.2),
            last=Stage(image_size=44, dropout_rate=0.3, mixup_alpha=0.4),
        ),
        batch_size=BATCH,
        epochs=epochs,
        augment=AugmentConfig(policy="none"),
        evaluation=EvaluationConfig(image_size=40, batch_size=40, every_epochs=epochs / 7),
        checkpoint=CheckpointConfig(every_steps=every_steps),
    )
