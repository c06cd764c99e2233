"""ResNet-50 and ResNet-152 on ImageNet, with progressive learning and without it.

The argument names the model, `:50` (the default) or `:152`; the size it is trained for and
evaluated at, `:380` (the default) or `:224`; and the schedule, `:constant` (the default) or
`:progressive`, four stages from 128 px. Published (paper, section 6.2; top-1 and hours on 32 TPU v3
cores, constant and progressive):

    ResNet-50   26 M  224 px   78.1 %  4.9 h    78.4 %  3.5 h
    ResNet-50   26 M  380 px   80.0 % 14.3 h    80.3 %  5.8 h
    ResNet-152  60 M  380 px   82.4 % 15.5 h    82.9 %  7.2 h

The paper states the sizes alone. All else is ours: the recipe of `imagenet_s.py` with its
regularisation for ResNet-50, and with that of `imagenet_m.py` for ResNet-152; bicubic crops,
ImageNet's mean and deviation. `:smoke` shortens any of them to about a minute on embedded data
(`:152,progressive,smoke`). The data is that of `imagenet_s.py`.
"""

import ml_collections

from effnetv2_jax.config import recipes
from effnetv2_jax.config.argument import choose
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.progressive import Stage, linear

ARGUMENTS = (("50", "152"), ("380", "224"), ("constant", "progressive"))


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    return choose(argument, build, *ARGUMENTS)


def build(model: str, pixels: str, schedule: str) -> Experiment:
    size = int(pixels)
    first = Stage(image_size=128, randaugment_magnitude=5.0, dropout_rate=0.1)
    last = Stage(image_size=size, randaugment_magnitude=15.0, dropout_rate=0.3)
    if model == "152":
        last = Stage(image_size=size, randaugment_magnitude=20.0, mixup_alpha=0.2, dropout_rate=0.4)
    stages = linear(4, first=first, last=last) if schedule == "progressive" else (last,)
    return recipes.imagenet_resnet(f"resnet{model}", stages, image_size=size)
