"""A folder of your own pictures, from scratch.

    python -m effnetv2_jax.main --config=configs/folder.py --config.data.path=PICTURES --workdir=RUN

PICTURES holds a subfolder for each class, or `train/` and `val/` with these subfolders. Without
`val/` a tenth of every class is held out. `:smoke` runs for about a minute on embedded data.
"""

import ml_collections

from effnetv2_jax.config import (
    AdamW,
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
    return choose(argument, folder)


def folder() -> Experiment:
    return Experiment(
        model=EfficientNetConfig(
            name="efficientnetv2-b0",
            stochastic_depth_rate=0.1,
            bn_momentum=0.9,
            dtype="bfloat16",
        ),
        data=DataConfig(
            source="folder",
            eval_split="val",
            validation_share=0.1,
            crop="torchvision",
            crop_area=(0.2, 1.0),
        ),
        stages=linear(
            4,
            first=Stage(image_size=128, dropout_rate=0.1, randaugment_magnitude=3.0),
            last=Stage(image_size=224, dropout_rate=0.3, randaugment_magnitude=10.0),
        ),
        epochs=60,
        batch_size=64,
        optimizer=AdamW(learning_rate=0.004, weight_decay=0.05),
        schedule=Cosine(warmup_epochs=3.0),
        ema_decay=0.999,
        evaluation=EvaluationConfig(image_size=256, resize="crop", batch_size=64, every_epochs=5.0),
        log=LogConfig(every_steps=20),
    )
