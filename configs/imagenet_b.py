"""EfficientNetV2-B0 to B3 on ImageNet from scratch (paper, section 6.1).

The argument names the model: `:b0` (the default) to `:b3`. Published top-1, and no hours:

    b0 78.7 % at 224 px   7.1 M parameters
    b1 79.8 % at 240 px   8.1 M
    b2 80.5 % at 260 px  10 M
    b3 82.1 % at 300 px  14 M

Trained as EfficientNet was, for a fair comparison: AutoAugment, bicubic crops of at least 8 % of a
picture, ImageNet's mean and deviation, the same dropout throughout. `:paper` (the default) keeps
one image size (192, 192, 208, 240 px); `:code` has the four stages of the authors' released program
(from 144, 144, 148, 156 px), and BatchNorm momentum 0.9 over groups of 1,024 examples. `:smoke`
shortens any of them to about a minute on embedded data (`:b2,code,smoke`). The data is that of
`imagenet_s.py`.
"""

import ml_collections

from effnetv2_jax.config import Experiment, recipes
from effnetv2_jax.config.argument import choose
from effnetv2_jax.models.efficientnet.variants import get_variant
from effnetv2_jax.progressive import Stage, released_code

ARGUMENTS = (("b0", "b1", "b2", "b3"), ("paper", "code"))


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    return choose(argument, build, *ARGUMENTS)


def build(model: str, origin: recipes.Origin) -> Experiment:
    name = f"efficientnetv2-{model}"
    variant = get_variant(name)
    last = Stage(image_size=variant.train_size, dropout_rate=variant.dropout_rate)
    stages: tuple[Stage, ...] = (last,)
    if origin == "code":
        first = Stage(image_size=128, dropout_rate=variant.dropout_rate)
        stages = released_code(4, first=first, last=last)
    return recipes.imagenet_small(name, origin, stages)
