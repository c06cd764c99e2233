"""CIFAR-10, CIFAR-100, Oxford Flowers and Stanford Cars, from ImageNet's weights (paper, 5.3).

The arguments name the set, `:cifar10` (the default), `:cifar100`, `:flowers` or `:cars`, and the
model, `:s` (the default), `:m`, `:l`, `:xl`, `:b0` to `:b3`, in any order: `:cars,m`. Published
top-1, and no hours:

              train    test  classes  S, 21 M  M, 54 M  L, 119 M
    cifar10  50,000  10,000       10   98.7 %   99.0 %    99.1 %
    cifar100 50,000  10,000      100   91.5 %   92.2 %    92.3 %
    flowers   2,040   6,149      102   97.9 %   98.5 %    98.8 %
    cars      8,144   8,041      196   93.8 %   94.6 %    95.1 %

10,000 steps of 512 images at the size of the model's evaluation, whole pictures squashed, cutout.
XL, which has no weights from ImageNet alone, starts from those that saw ImageNet21k first. `:paper`
(the default): cosine learning rate, no L2 penalty, BatchNorm momentum 0.99. `:code`, as the
authors' released program: constant learning rate, L2 1e-5, momentum 0.9. `:smoke` shortens any of
them to about a minute on embedded data, from random weights (`:flowers,b0,code,smoke`).

Needs the set, `cifar10`, `cifar100`, `oxford_flowers102` or `cars196`, prepared by TensorFlow
Datasets as ArrayRecord.
"""

import dataclasses

import ml_collections

from effnetv2_jax.config import DataConfig, Experiment, recipes
from effnetv2_jax.config.argument import choose

_CIFAR = DataConfig(
    source="tfds", train_split="train", eval_split="test", num_train_examples=50_000
)
SETS = {
    "cifar10": dataclasses.replace(_CIFAR, name="cifar10", num_classes=10),
    "cifar100": dataclasses.replace(_CIFAR, name="cifar100", num_classes=100),
    "flowers": dataclasses.replace(
        _CIFAR,
        name="oxford_flowers102",
        train_split="train+validation",
        num_classes=102,
        num_train_examples=2_040,
    ),
    "cars": dataclasses.replace(_CIFAR, name="cars196", num_classes=196, num_train_examples=8_144),
}
ARGUMENTS = (tuple(SETS), recipes.TRANSFER_MODELS, ("paper", "code"))


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    return choose(argument, build, *ARGUMENTS)


def build(data: str, model: str, origin: recipes.Origin) -> Experiment:
    return recipes.transfer(model, origin, SETS[data])
