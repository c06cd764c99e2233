"""EfficientNetV2-S, M, L and XL on ImageNet21k from scratch (paper, section 5.2).

The argument names the model: `:s` (the default), `:m`, `:l` or `:xl`. No accuracy on ImageNet21k
and no hours are published; fine-tuned on ImageNet by `imagenet_ft.py` they reach

    s  48 M parameters with the classifier for 21,843 classes  84.9 %
    m  81 M                                                    86.2 %
    l  145 M                                                   86.8 %
    xl 235 M                                                   87.3 %

12.7 million images, 224 px, 60 epochs (the paper: 60 or 30), no augmentation but crops and flips,
no dropout, no stochastic depth. `:paper` (the default) has 21,841 classes and BatchNorm momentum
0.99; `:code`, as the authors' released program, 21,843 classes and momentum 0.9 over groups of
1,024 examples. `:sigmoid` asks yes or no for each class, which is how the released weights were
trained, where `:softmax` (the default) shares 1 among the labels of an image. `:smoke` shortens any
of them to about a minute on embedded data (`:m,code,sigmoid,smoke`).

Needs the set as ArrayRecord under the name `imagenet21k`, as `effnetv2_jax.data.prepare` makes it,
or TFRecord files. As the authors did, the first 100,357 images are left for a last evaluation, the
next 25,089 choose checkpoints, and 12,720,275 are trained on. Other copies have other numbers:
override `data.train_split`, `data.eval_split`, `data.num_classes`, and `data.num_train_examples`
with what you have, or None.
"""

import ml_collections

from effnetv2_jax.config import Experiment, recipes
from effnetv2_jax.config.argument import choose

ARGUMENTS = (("s", "m", "l", "xl"), ("paper", "code"), ("softmax", "sigmoid"))


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    return choose(argument, build, *ARGUMENTS)


def build(model: str, origin: recipes.Origin, loss: recipes.LossName) -> Experiment:
    return recipes.imagenet21k(f"efficientnetv2-{model}", origin, loss)
