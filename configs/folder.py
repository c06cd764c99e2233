"""A folder of your own pictures, from scratch.

    python -m effnetv2_jax.main --config=configs/folder.py --config.data.path=PICTURES --workdir=RUN

PICTURES holds a subfolder for each class, or `train/` and `val/` with these subfolders. Without
`val/` a tenth of every class is held out. The batch and the epochs follow from the number of
pictures, so that a few hundred are seen often enough; `--mode=plan` says what they are.

`:small`, the default where there is no GPU or TPU, trains a network of 0.2 M parameters at 48 to 96
px, on two cores in a few minutes for a few hundred pictures. `:large`, the default elsewhere,
trains EfficientNetV2-B0 at 128 to 224 px, in bfloat16 where the device has it. `:smoke` runs for
about a minute on embedded data. Continue a run on another kind of device with the same argument.
"""

import ml_collections

from effnetv2_jax.config import (
    AdamW,
    AugmentConfig,
    Cosine,
    DataConfig,
    EvaluationConfig,
    Experiment,
    LogConfig,
)
from effnetv2_jax.config.argument import choose
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.progressive import Stage, linear
from effnetv2_jax.system import accelerator

AUTO = 0
"""The batch that suits the number of pictures."""
MIN_STEPS = 5000
ARGUMENTS = (("small", "large"),)


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    (sizes,) = ARGUMENTS
    by_device = sizes if accelerator.platform() == "cpu" else sizes[::-1]
    return choose(argument, folder, by_device)


def folder(size: str) -> Experiment:
    return {"small": small, "large": large}[size]()


def small() -> Experiment:
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
            source="folder",
            eval_split="val",
            validation_share=0.1,
            crop="torchvision",
            crop_area=(0.35, 1.0),
            interpolation="bilinear",
            mean=(128.0, 128.0, 128.0),
            std=(128.0, 128.0, 128.0),
        ),
        stages=linear(
            4,
            first=Stage(image_size=48, dropout_rate=0.0, randaugment_magnitude=5.0),
            last=Stage(image_size=96, dropout_rate=0.2, randaugment_magnitude=8.0, mixup_alpha=0.2),
        ),
        # Translations of 100 pixels would leave nothing of such small images.
        augment=AugmentConfig(randaugment_layers=1, translate_pixels=12.0, cutout_pixels=12.0),
        epochs=60,
        min_steps=MIN_STEPS,
        batch_size=AUTO,
        optimizer=AdamW(learning_rate=0.12, weight_decay=0.05),
        schedule=Cosine(warmup_epochs=1.2),
        ema_decay=0.995,
        evaluation=EvaluationConfig(
            image_size=112, resize="squash", batch_size=64, every_epochs=7.5
        ),
        log=LogConfig(every_steps=50),
    )


def large() -> Experiment:
    return Experiment(
        model=EfficientNetConfig(
            name="efficientnetv2-b0",
            stochastic_depth_rate=0.1,
            bn_momentum=0.9,
            dtype=accelerator.fast_dtype(),
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
        min_steps=MIN_STEPS,
        batch_size=AUTO,
        optimizer=AdamW(learning_rate=0.004, weight_decay=0.05),
        schedule=Cosine(warmup_epochs=3.0),
        ema_decay=0.999,
        evaluation=EvaluationConfig(image_size=256, resize="crop", batch_size=64, every_epochs=5.0),
        log=LogConfig(every_steps=20),
    )
