"""EfficientNetV2-S on ImageNet from scratch (paper, sections 4 and 5.1).

Published: 83.9 % top-1 at 384 px, 22 M parameters, 7.1 hours on 32 TPU v3 cores. Others who ran the
released program report 83.5 %.

`:paper` (the default) follows Algorithm 1: image size 128 to 300, RandAugment 5 to 15, dropout 0.1
to 0.3; BatchNorm momentum 0.99. `:code` is what the authors' released program does: image size 171
to 300, RandAugment 5 to 10, dropout 0.2 throughout, BatchNorm momentum 0.9 over groups of 1,024
examples. `:smoke` shortens either to about a minute on embedded data (`:code,smoke`).

Needs `imagenet2012`, prepared by TensorFlow Datasets as ArrayRecord, TFRecord files
(`--config.data.source=tfrecord`) or a folder (`--config.data.source=folder`). The first 25,021
training images are held out for choosing checkpoints; measure the result with `--mode=eval
--config.data.eval_split=validation`.
"""

import ml_collections

from effnetv2_jax.config import recipes
from effnetv2_jax.config.argument import choose
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.progressive import Stage, linear, released_code

ARGUMENTS = (("paper", "code"),)


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    return choose(argument, build, *ARGUMENTS)


def build(which: str) -> Experiment:
    name = "efficientnetv2-s"
    if which == "code":
        return recipes.imagenet(
            name,
            "code",
            released_code(
                4,
                first=Stage(image_size=128, dropout_rate=0.2, randaugment_magnitude=5.0),
                last=Stage(image_size=300, dropout_rate=0.2, randaugment_magnitude=10.0),
            ),
        )
    return recipes.imagenet(
        name,
        "paper",
        linear(
            4,
            first=Stage(image_size=128, dropout_rate=0.1, randaugment_magnitude=5.0),
            last=Stage(image_size=300, dropout_rate=0.3, randaugment_magnitude=15.0),
        ),
    )
