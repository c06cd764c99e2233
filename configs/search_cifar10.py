"""A search on CIFAR-10 as a folder of pictures, `train/` and `test/` with a subfolder each class.

    python -m effnetv2_jax.search --config=configs/search_cifar10.py --config.data.path=DIR \
        --workdir=STUDY

A trial is three epochs of 45,000 training pictures, at 64 pixels; the other 5,000 score it, so that
the test set stays untouched. The best five are trained four times as long with three seeds each.
`:smoke` trains two candidates for a few steps on embedded data.
"""

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
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.nas import Search, paper_space
from effnetv2_jax.nas.argument import choose
from effnetv2_jax.progressive import Stage


def get_config(argument: str = "") -> Search:
    return choose(argument, search_cifar10)


def search_cifar10() -> Search:
    backbone = EfficientNetConfig(
        name="efficientnetv2-b0",
        width=0.5,
        depth=0.5,
        stochastic_depth_rate=0.0,
        bn_momentum=0.9,
        dtype="float32",
    )
    experiment = Experiment(
        model=backbone,
        data=DataConfig(
            source="folder",
            train_split="train[:45000]",
            eval_split="train[45000:]",
            crop="torchvision",
            crop_area=(0.6, 1.0),
            interpolation="bilinear",
            mean=(128.0, 128.0, 128.0),
            std=(128.0, 128.0, 128.0),
        ),
        stages=(Stage(image_size=64),),
        augment=AugmentConfig(policy="none"),
        epochs=3,
        batch_size=64,
        optimizer=AdamW(learning_rate=0.03, weight_decay=0.05),
        schedule=Cosine(warmup_epochs=0.3),
        ema_decay=None,
        evaluation=EvaluationConfig(
            image_size=64, resize="squash", batch_size=250, every_epochs=3.0
        ),
        checkpoint=CheckpointConfig(every_steps=500),
        log=LogConfig(every_steps=100, tensorboard=False),
    )
    return Search(
        experiment=experiment, space=paper_space(backbone), trials=60, cost="measured", finals=5
    )
