"""EfficientNetV2-L on ImageNet from scratch (paper, sections 4 and 5.1).

Published: 85.7 % top-1 at 480 px, 120 M parameters, 24 hours on 32 TPU v3 cores.

`:paper` (the default) follows Algorithm 1: image size 128 to 380, RandAugment 5 to 25, mixup 0 to
0.5, dropout 0.1 to 0.5; BatchNorm momentum 0.99. `:code` is what the authors' released program
does: image size 192 to 384, RandAugment 5 to 20, mixup and CutMix 0 to 0.5, each for half of a
batch, dropout 0.4 throughout, BatchNorm momentum 0.9 over groups of 1,024 examples. `:smoke`
shortens either to about a minute on embedded data (`:code,smoke`).

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
    name = "efficientnetv2-l"
    if which == "code":
        return recipes.imagenet(
            name,
            "code",
            released_code(
                4,
                first=Stage(image_size=128, dropout_rate=0.4, randaugment_magnitude=5.0),
                last=Stage(
                    image_size=384,
                    dropout_rate=0.4,
                    randaugment_magnitude=20.0,
                    mixup_alpha=0.5,
                    cutmix_alpha=0.5,
                ),
            ),
        )
    return recipes.imagenet(
        name,
        "paper",
        linear(
            4,
            first=Stage(image_size=128, dropout_rate=0.1, randaugment_magnitude=5.0),
            last=Stage(
                image_size=380, dropout_rate=0.5, randaugment_magnitude=25.0, mixup_alpha=0.5
            ),
        ),
    )
