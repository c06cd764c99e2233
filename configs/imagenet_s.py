"""EfficientNetV2-S on ImageNet from scratch (paper, sections 4 and 5.1).

Published: 83.9 % top-1 at 384 px, 22 M parameters, 7.1 hours on 32 TPU v3 cores.

`:paper` (the default) follows Algorithm 1: image size 128 to 300, RandAugment 5 to 15, dropout 0.1
to 0.3; BatchNorm momentum 0.99. `:code` is what the authors' released program does: image size 171
to 300, RandAugment 5 to 10, dropout 0.2 throughout, BatchNorm momentum 0.9 over groups of 1,024
examples. `:smoke` shortens either to about a minute on embedded data (`:code,smoke`).

Needs `imagenet2012`, prepared by TensorFlow Datasets as ArrayRecord. The first 25,021 training
images are held out for choosing checkpoints; measure the result with
`--mode=eval --config.data.eval_split=validation`.
"""

import dataclasses

import ml_collections

from effnetv2_jax import progressive
from effnetv2_jax.experiment import (
    DataConfig,
    EvaluationConfig,
    Experiment,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from effnetv2_jax.smoke import choose


def get_config(argument: str = "paper") -> ml_collections.ConfigDict:
    return choose(argument, {"paper": paper, "code": code})


def paper() -> Experiment:
    return Experiment(
        model=ModelConfig(name="efficientnetv2-s", stochastic_depth_rate=0.2, bn_momentum=0.99),
        data=DataConfig(
            source="tfds",
            name="imagenet2012",
            train_split="train[25023:]",
            eval_split="train[:25021]",
            num_classes=1000,
            num_train_examples=1_256_144,
            crop="tensorflow",
            crop_area=(0.05, 1.0),
        ),
        stages=progressive.linear(
            4,
            image_size=(128, 300),
            dropout_rate=(0.1, 0.3),
            randaugment_magnitude=(5.0, 15.0),
        ),
        epochs=350,
        batch_size=4096,
        optimizer=OptimizerConfig(
            name="rmsprop", learning_rate=0.016, decay=0.9, momentum=0.9, epsilon=1e-3, l2=1e-5
        ),
        schedule=ScheduleConfig(
            name="exponential", warmup_epochs=5.0, decay_rate=0.97, decay_epochs=2.4
        ),
        label_smoothing=0.1,
        ema_decay=0.9999,
        evaluation=EvaluationConfig(image_size=384, batch_size=1024, every_epochs=10.0),
    )


def code() -> Experiment:
    experiment = paper()
    return dataclasses.replace(
        experiment,
        model=dataclasses.replace(experiment.model, bn_momentum=0.9, bn_group=1024),
        stages=progressive.released_code(
            4, image_size=300, dropout_rate=0.2, randaugment_magnitude=(5.0, 10.0)
        ),
    )
