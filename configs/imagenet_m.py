"""EfficientNetV2-M on ImageNet from scratch (paper, sections 4 and 5.1).

Published: 85.1 % top-1 at 480 px, 54 M parameters, 13 hours on 32 TPU v3 cores. Others who ran the
released program report 84.5 %.

`:paper` (the default) follows Algorithm 1: image size 128 to 380, RandAugment 5 to 20, mixup 0 to
0.2, dropout 0.1 to 0.4; BatchNorm momentum 0.99. `:code` is what the authors' released program
does: image size 192 to 384, RandAugment 5 to 15, mixup and CutMix 0 to 0.2, each for half of a
batch, dropout 0.3 throughout, BatchNorm momentum 0.9 over groups of 1,024 examples.
`:random-resize` is the paper's ablation (section 6.3, 84.2 %): every 8 epochs one of four sizes is
drawn, with the regularisation that goes with it. `:smoke` shortens any of them to about a minute on
embedded data (`:code,smoke`).

Needs `imagenet2012`, prepared by TensorFlow Datasets as ArrayRecord, TFRecord files
(`--config.data.source=tfrecord`) or a folder (`--config.data.source=folder`). The first 25,021
training images are held out for choosing checkpoints; measure the result with `--mode=eval
--config.data.eval_split=validation`.
"""

import ml_collections

from effnetv2_jax.config import recipes
from effnetv2_jax.config.argument import choose
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.progressive import Stage, linear, random_resize, released_code

ARGUMENTS = (("paper", "code", "random-resize"),)


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    return choose(argument, build, *ARGUMENTS)


def build(which: str) -> Experiment:
    name = "efficientnetv2-m"
    if which == "code":
        return recipes.imagenet(
            name,
            "code",
            released_code(
                4,
                first=Stage(image_size=128, dropout_rate=0.3, randaugment_magnitude=5.0),
                last=Stage(
                    image_size=384,
                    dropout_rate=0.3,
                    randaugment_magnitude=15.0,
                    mixup_alpha=0.2,
                    cutmix_alpha=0.2,
                ),
            ),
        )
    first = Stage(image_size=128, dropout_rate=0.1, randaugment_magnitude=5.0)
    last = Stage(image_size=380, dropout_rate=0.4, randaugment_magnitude=20.0, mixup_alpha=0.2)
    if which == "random-resize":
        # The seed draws each size about as often as any other.
        return recipes.imagenet(name, "paper", random_resize(44, first=first, last=last, seed=2))
    return recipes.imagenet(name, "paper", linear(4, first=first, last=last))
