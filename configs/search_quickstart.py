"""A search on the embedded photographs, in about 12 minutes on two CPU cores.

Twelve small EfficientNetV2s are trained for a few epochs, two at a time with a core each. Most of
what a candidate costs is its compilation: hence one image size, little augmentation and no averages
of weights. `:smoke` trains two candidates for a few steps.
"""

from effnetv2_jax.config import (
    AdamW,
    AugmentConfig,
    Cosine,
    DataConfig,
    EvaluationConfig,
    Experiment,
    LogConfig,
)
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.nas import Search, paper_space
from effnetv2_jax.nas.argument import choose
from effnetv2_jax.progressive import Stage


def get_config(argument: str = "") -> Search:
    return choose(argument, search_quickstart)


def search_quickstart() -> Search:
    backbone = EfficientNetConfig(
        name="efficientnetv2-b0",
        width=0.5,
        depth=0.1,
        stochastic_depth_rate=0.0,
        bn_momentum=0.9,
        dtype="float32",
    )
    experiment = Experiment(
        model=backbone,
        data=DataConfig(
            source="embedded",
            crop="torchvision",
            crop_area=(0.6, 1.0),
            interpolation="bilinear",
            mean=(128.0, 128.0, 128.0),
            std=(128.0, 128.0, 128.0),
        ),
        stages=(Stage(image_size=64),),
        augment=AugmentConfig(policy="none"),
        epochs=4,
        batch_size=16,
        optimizer=AdamW(learning_rate=0.12, weight_decay=0.05),
        schedule=Cosine(warmup_epochs=1.0),
        ema_decay=None,
        evaluation=EvaluationConfig(
            image_size=64, resize="squash", batch_size=101, every_epochs=4.0
        ),
        log=LogConfig(every_steps=100, tensorboard=False),
    )
    return Search(
        experiment=experiment,
        # The backbone has one block a stage.
        space=paper_space(backbone, layers=(1.0, 2.0)),
        trials=12,
        workers=2,
        cores=1,
    )
