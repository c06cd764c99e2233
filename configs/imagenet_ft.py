"""EfficientNetV2, pretrained on ImageNet21k, fine-tuned on ImageNet (paper, section 5.2).

The argument names the model: `:s` (the default), `:m`, `:l` or `:xl`. Published top-1, and no
hours:

    s  84.9 % at 384 px   22 M parameters
    m  86.2 % at 480 px   54 M
    l  86.8 % at 480 px  120 M
    xl 87.3 % at 512 px  208 M

Starts from the published ImageNet21k weights; for your own, `--config.init=workdir:DIR` with the
directory of a run of `imagenet21k.py`. 15 epochs at the size of evaluation, whole pictures
squashed, cutout. `:paper` (the default): cosine learning rate, no L2 penalty, BatchNorm momentum
0.99. `:code`, as the authors' released program: constant learning rate, L2 1e-5, momentum 0.9.
`:smoke` shortens any of them to about a minute on embedded data, from random weights
(`:m,code,smoke`). The data is that of `imagenet_s.py`.
"""

import ml_collections

from effnetv2_jax.config import Experiment, recipes
from effnetv2_jax.config.argument import choose

ARGUMENTS = (("s", "m", "l", "xl"), ("paper", "code"))


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    return choose(argument, build, *ARGUMENTS)


def build(model: str, origin: recipes.Origin) -> Experiment:
    return recipes.fine_tune(f"efficientnetv2-{model}", origin, "in21k", recipes.IMAGENET)
