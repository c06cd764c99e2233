"""DeiT on ImageNet from scratch, without distillation (arXiv 2012.12877).

The argument names the model: `:deit-s` (the default), `:deit-b`, `:deit-ti`. Published top-1 79.8,
81.8, 72.2 %, with 22, 87 and 5.7 M parameters at 224 px; no hours that compare with the paper's.

Its recipe: AdamW at 5e-4 for 512 examples, weight decay 0.05 on kernels alone, a cosine to 1e-5
after 5 epochs of warm-up from 1e-6, 300 epochs, batches of 1,024, two layers of RandAugment of
increasing strength at magnitude 9 +- 0.5, mixup 0.8 or CutMix 1.0 for a batch, label smoothing 0.1,
erasing of a quarter of the pictures, stochastic depth 0.1, three crops of each picture, no average.
What differs: the cosine begins after the warm-up, not with it, and goes on within an epoch, and
RandAugment's geometric operations take the nearest pixel. `:smoke` shortens any of them to about a
minute on embedded data (`:deit-b,smoke`). The data is that of `imagenet_s.py`.
"""

import ml_collections

from effnetv2_jax.config import recipes
from effnetv2_jax.config.argument import choose
from effnetv2_jax.config.experiment import Experiment

ARGUMENTS = (("deit-s", "deit-b", "deit-ti"),)


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    return choose(argument, build, *ARGUMENTS)


def build(model: str) -> Experiment:
    return recipes.imagenet_deit(model)
