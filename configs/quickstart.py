"""Four stages of progressive learning on the embedded photographs, in minutes on two CPU cores.

A small EfficientNetV2 (0.2 M parameters) learns the six kinds of waste of TrashNet. Image size,
RandAugment and dropout rise together from stage to stage, as in the paper's Algorithm 1.
`:smoke` runs the same for about a minute.
"""

import ml_collections

from effnetv2_jax.config import (
    AdamW,
    AugmentConfig,
    CheckpointConfig,
    Cosine,
    DataConfig,
    EvaluationConfig,
    Experiment,
    LogConfig,
)
from effnetv2_jax.config.argument import choose
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.progressive import Stage, linear


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    return choose(argument, quickstart)


def quickstart() -> Experiment:
    return Experiment(
        model=EfficientNetConfig(
            name="efficientnetv2-b0",
            width=0.5,
            depth=0.1,
            stochastic_depth_rate=0.0,
            bn_momentum=0.9,
            dtype="float32",
        ),
        data=DataConfig(
            source="embedded",
            crop="torchvision",
            crop_area=(0.6, 1.0),
            interpolation="bilinear",
            mean=(128.0, 128.0, 128.0),
            std=(128.0, 128.0, 128.0),
        ),
        stages=linear(
            4,
            # RandAugment's are of 10: at 5, Color, Contrast, Brightness and Sharpness do nothing.
            first=Stage(image_size=48, dropout_rate=0.0, randaugment_magnitude=5.0),
            last=Stage(image_size=96, dropout_rate=0.15, randaugment_magnitude=6.5),
        ),
        # Translations of 100 pixels would leave nothing of such small images.
        augment=AugmentConfig(randaugment_layers=1, translate_pixels=12.0, cutout_pixels=12.0),
        epochs=22,
        batch_size=16,
        optimizer=AdamW(learning_rate=0.12, weight_decay=0.05),
        schedule=Cosine(warmup_epochs=1.0),
        ema_decay=0.99,
        evaluation=EvaluationConfig(
            image_size=112, resize="squash", batch_size=64, every_epochs=5.5
        ),
        checkpoint=CheckpointConfig(every_steps=1000),
        log=LogConfig(every_steps=20),
    )
