"""Stanford Cars, from ImageNet's weights (paper, section 5.3).

The argument names the model: `:s` (the default), `:m`, `:l`, `:xl`, `:b0` to `:b3`. Published
top-1: S 93.8 %, M 94.6 %, L 95.1 %; 8,144 training and 8,041 test images, 196 classes. No hours are
published.

10,000 steps of 512 images at the size of the model's evaluation, whole pictures squashed, cutout.
XL, which has no weights from ImageNet alone, starts from those that saw ImageNet21k first. `:paper`
(the default): cosine learning rate, no L2 penalty, BatchNorm momentum 0.99. `:code`, as the
authors' released program: constant learning rate, L2 1e-5, momentum 0.9. `:smoke` shortens any of
them to about a minute on embedded data, from random weights (`:b0,code,smoke`).

Needs `cars196`, prepared by TensorFlow Datasets as ArrayRecord.
"""

import ml_collections

from effnetv2_jax.config import recipes
from effnetv2_jax.config.argument import choose
from effnetv2_jax.config.experiment import DataConfig, Experiment

ARGUMENTS = (recipes.TRANSFER_MODELS, ("paper", "code"))
DATA = DataConfig(
    source="tfds",
    name="cars196",
    train_split="train",
    eval_split="test",
    num_classes=196,
    num_train_examples=8_144,
)


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    return choose(argument, build, *ARGUMENTS)


def build(model: str, origin: recipes.Origin) -> Experiment:
    return recipes.transfer(model, origin, DATA)
