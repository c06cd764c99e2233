"""EfficientNetV2-B0 on ImageNet from scratch (paper, section 6.1).

Published: 78.7 % top-1 at 224 px, 7.1 M parameters; no hours are.

Trained as EfficientNet was, for a fair comparison: AutoAugment, bicubic crops of at least 8 % of a
picture, ImageNet's mean and deviation, dropout 0.2 throughout. `:paper` (the default) keeps one
image size, 192 px; `:code` has the four stages of the authors' released program, from 144 to 192
px, and BatchNorm momentum 0.9 over groups of 1,024 examples. `:smoke` shortens either to about a
minute on embedded data (`:code,smoke`). The data is that of `imagenet_s.py`.
"""

import ml_collections

from effnetv2_jax.config import recipes
from effnetv2_jax.config.argument import choose
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.progressive import Stage, released_code

ARGUMENTS = (("paper", "code"),)


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    return choose(argument, build, *ARGUMENTS)


def build(which: str) -> Experiment:
    name = "efficientnetv2-b0"
    last = Stage(image_size=192, dropout_rate=0.2)
    if which == "code":
        first = Stage(image_size=128, dropout_rate=0.2)
        return recipes.imagenet_small(name, "code", released_code(4, first=first, last=last))
    return recipes.imagenet_small(name, "paper", (last,))
