"""EfficientNet B0 to B7, the predecessor, on ImageNet from scratch.

The argument names the model: `:b0` (the default) to `:b7`. Published (top-1, parameters, hours on
32 TPU v3 cores; B0 to B2 in arXiv 1905.11946, where hours are missing, the others in the paper,
section 5.1):

    b0 77.1 %  5.3 M       b3 81.5 %  12 M  10 h     b6 84.3 %  43 M   75 h
    b1 79.1 %  7.8 M       b4 82.9 %  19 M  21 h     b7 84.7 %  66 M  139 h
    b2 80.1 %  9.2 M       b5 83.7 %  30 M  43 h

Trained as the authors' released program for EfficientNetV2 trains them: AutoAugment, image size 0.8
times that of evaluation. `:progressive` is progressive learning for a model it was not made for
(paper, section 6.2: B4 82.9 % in 20.8 h becomes 83.1 % in 9.4 h, B5 83.7 % in 42.9 h becomes 84.0 %
in 15.2 h); the stages, which the paper does not state, are ours: four, from 128 px, with dropout
from 0.1. `:smoke` shortens any of them to about a minute on embedded data
(`:b4,progressive,smoke`). The data is that of `imagenet_s.py`.
"""

import ml_collections

from effnetv2_jax.config import recipes
from effnetv2_jax.config.argument import choose
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.models.efficientnet.variants import get_variant
from effnetv2_jax.progressive import Stage, linear

ARGUMENTS = (("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7"), ("constant", "progressive"))


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    return choose(argument, build, *ARGUMENTS)


def build(model: str, schedule: str) -> Experiment:
    name = f"efficientnet-{model}"
    size, dropout_rate = get_variant(name).train_size, get_variant(name).dropout_rate
    last = Stage(image_size=size, dropout_rate=dropout_rate)
    stages: tuple[Stage, ...] = (last,)
    if schedule == "progressive":
        stages = linear(4, first=Stage(image_size=128, dropout_rate=0.1), last=last)
    return recipes.imagenet_small(name, "code", stages)
