"""EfficientNetV2-XL, pretrained on ImageNet21k, fine-tuned on ImageNet (paper, section 5.2).

Published: 87.3 % top-1 at 512 px, 208 M parameters; no hours are.

Starts from the published ImageNet21k weights; for your own, `--config.init=workdir:DIR` with the
directory of an `imagenet21k_xl.py` run. 15 epochs at 512 px, whole pictures squashed, cutout.
`:paper` (the default): cosine learning rate, no L2 penalty, BatchNorm momentum 0.99. `:code`, as
the authors' released program: constant learning rate, L2 1e-5, momentum 0.9. `:smoke` shortens
either to about a minute on embedded data, from random weights (`:code,smoke`). The data is that of
`imagenet_s.py`.
"""

import ml_collections

from effnetv2_jax.config import recipes
from effnetv2_jax.config.argument import choose
from effnetv2_jax.config.experiment import Experiment

ARGUMENTS = (("paper", "code"),)


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    return choose(argument, build, *ARGUMENTS)


def build(origin: recipes.Origin) -> Experiment:
    return recipes.fine_tune("efficientnetv2-xl", origin, "in21k", recipes.IMAGENET)
