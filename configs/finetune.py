"""Published weights, fine-tuned on a folder of your own pictures.

    python -m effnetv2_jax.main --config=configs/finetune.py --config.data.path=PICTURES \\
        --workdir=RUN

PICTURES holds a subfolder for each class, or `train/` and `val/` with these subfolders. Without
`val/` a tenth of every class is held out. EfficientNetV2-S starts from its ImageNet21k weights,
fine-tuned on ImageNet; the classifier, which starts anew, learns ten times as fast as the rest.

Another model: `--config.model.name=efficientnetv2-b0 --config.init=in1k`. Weights of your own:
`--config.init=workdir:RUN` or `file:PATH`. The classifier alone, on a small machine:
`--config.rates="(('classifier',1),('.*',0))" --config.model.bn_frozen=True`. `:smoke` runs for
about a minute on embedded data, from random weights.
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
    return choose(argument, finetune)


def finetune() -> Experiment:
    return Experiment(
        init="in21k-ft1k",
        model=EfficientNetConfig(
            name="efficientnetv2-s",
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
            2,
            first=Stage(image_size=224, dropout_rate=0.1, randaugment_magnitude=5.0),
            last=Stage(image_size=300, dropout_rate=0.3, randaugment_magnitude=10.0),
        ),
        epochs=20,
        batch_size=32,
        rates=(("classifier", 10.0),),
        optimizer=AdamW(learning_rate=0.001, weight_decay=0.05, gradient_clip=1.0),
        schedule=Cosine(warmup_epochs=1.0),
        ema_decay=0.999,
        evaluation=EvaluationConfig(batch_size=32, every_epochs=2.0),
        log=LogConfig(every_steps=20),
    )
