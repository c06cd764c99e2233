"""The paper's search (section 3.1), around EfficientNetV2-S.

    python -m effnetv2_jax.search --config=configs/search_imagenet.py --config.data.path=DIR \
        --workdir=gs://BUCKET/STUDY --search.executor=ray --search.workers=100

Up to 1,000 candidates, each trained for 10 epochs at 128 pixels and scored on the 25,021 training
images that are held out; the best ten are trained four times as long. What the paper does not say
is chosen here: the size, the batch, the schedule, and a backbone whose layers are taken .5, 1 and
1.5 times. `:smoke` trains two candidates for a few steps on embedded data.
"""

import dataclasses

from effnetv2_jax.config import CheckpointConfig, Cosine, EvaluationConfig, LogConfig, recipes
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.nas import Search, paper_space
from effnetv2_jax.nas.argument import choose
from effnetv2_jax.progressive import Stage


def get_config(argument: str = "") -> Search:
    return choose(argument, search_imagenet)


def search_imagenet() -> Search:
    backbone = EfficientNetConfig(
        name="efficientnetv2-s", stochastic_depth_rate=0.0, bn_momentum=0.9, dtype="bfloat16"
    )
    stage = Stage(image_size=128, dropout_rate=0.1, randaugment_magnitude=5.0)
    experiment = dataclasses.replace(
        recipes.imagenet("efficientnetv2-s", "paper", (stage,)),
        model=backbone,
        epochs=10,
        batch_size=1024,
        schedule=Cosine(warmup_epochs=1.0),
        ema_decay=None,
        evaluation=EvaluationConfig(
            image_size=160, resize="squash", batch_size=1024, every_epochs=10.0
        ),
        checkpoint=CheckpointConfig(every_steps=2000),
        log=LogConfig(every_steps=200, tensorboard=False),
    )
    return Search(
        experiment=experiment,
        space=paper_space(backbone),
        trials=1000,
        cost="measured",
        finals=10,
        finals_seeds=1,
    )
