"""ResNet-RS on ImageNet from scratch (arXiv 2103.07579).

The argument names the model: `:50` (the default), `:101`, `:152`, `:200`, `:270`, `:350`, `:420`.
Published top-1 78.8, 81.2, 83.0, 83.4, 83.8, 84.2, 84.4 %, with 36, 64, 87, 93, 130, 164 and 192 M
parameters; for 420, 61 hours on 32 TPU v3 cores (EfficientNetV2's paper).

Of its paper are the sizes, dropout (0.25; 0.4 for 350 and 420), stochastic depth (0.1 from 200 on),
SGD with momentum 0.9 at 0.1 for 256 examples, a cosine after 5 epochs of warm-up, 350 epochs,
batches of 4,096, weight decay 4e-5, label smoothing 0.1, two layers of RandAugment and an average
of 0.9999. Ours are RandAugment's magnitudes by size (10, and 15 from 256 px on), L2 on kernels
alone, BatchNorm's momentum 0.9 and 288 px for 350, with which timm measures it. `:smoke` shortens
any of them to about a minute on embedded data (`:420,smoke`). The data is that of `imagenet_s.py`.
"""

import ml_collections

from effnetv2_jax.config import recipes
from effnetv2_jax.config.argument import choose
from effnetv2_jax.config.experiment import Experiment

ARGUMENTS = (("50", "101", "152", "200", "270", "350", "420"),)


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    return choose(argument, build, *ARGUMENTS)


def build(model: str) -> Experiment:
    return recipes.imagenet_resnet_rs(f"resnetrs{model}")
