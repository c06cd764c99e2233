"""The paper's training runs, as far as its models share them; the files in `configs/` use them.

Where the paper (arXiv 2104.00298) and the authors' released program differ, `Origin` says which of
them is meant.
"""

import dataclasses
from typing import Literal

from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import AugmentConfig, DataConfig, EvaluationConfig, Experiment
from effnetv2_jax.config.optimizers import SGD, AdamW, RMSProp
from effnetv2_jax.config.schedules import Constant, Cosine, Exponential
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.models.efficientnet.variants import get_variant
from effnetv2_jax.models.resnet import ResNetConfig
from effnetv2_jax.models.resnet.variants import get_variant as resnet_variant
from effnetv2_jax.models.vit import ViTConfig
from effnetv2_jax.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from effnetv2_jax.progressive import Stage

Origin = Literal["paper", "code"]

LossName = Literal["softmax", "sigmoid"]

BN_MOMENTUM = {"paper": 0.99, "code": 0.9}

IMAGENET = DataConfig(
    source="tfds",
    name="imagenet2012",
    # 25,021 images are held out for choosing checkpoints. The authors left out two more.
    train_split="train[25023:]",
    eval_split="train[:25021]",
    num_classes=1000,
    num_train_examples=1_256_144,
    crop="tensorflow",
    crop_area=(0.05, 1.0),
    interpolation="bilinear",
    mean=(128.0, 128.0, 128.0),
    std=(128.0, 128.0, 128.0),
)
RMSPROP = RMSProp(learning_rate=0.016, decay=0.9, momentum=0.9, epsilon=1e-3, l2=1e-5)


def imagenet(name: str, origin: Origin, stages: tuple[Stage, ...]) -> Experiment:
    """ImageNet from scratch (sections 4 and 5.1): EfficientNetV2-S, M and L."""
    size = get_variant(name).eval_size
    return Experiment(
        model=_network(name, origin, stochastic_depth_rate=0.2),
        data=IMAGENET,
        augment=AugmentConfig(policy="randaugment", randaugment_layers=2),
        stages=stages,
        epochs=350,
        batch_size=4096,
        optimizer=RMSPROP,
        schedule=Exponential(warmup_epochs=5.0, decay_rate=0.97, decay_epochs=2.4),
        loss="softmax",
        label_smoothing=0.1,
        ema_decay=0.9999,
        evaluation=EvaluationConfig(
            image_size=size, resize="squash", batch_size=1024, every_epochs=10.0
        ),
    )


def _network(name: str, origin: Origin, *, stochastic_depth_rate: float) -> EfficientNetConfig:
    return EfficientNetConfig(
        name=name,
        stochastic_depth_rate=stochastic_depth_rate,
        bn_momentum=BN_MOMENTUM[origin],
        # The released program shares statistics over 8 of 32 cores.
        bn_group=1024 if origin == "code" else None,
        dtype="bfloat16",
    )


def imagenet_small(name: str, origin: Origin, stages: tuple[Stage, ...]) -> Experiment:
    """ImageNet from scratch as EfficientNet was trained: EfficientNetV2-B0 to B3, and V1.

    AutoAugment in place of RandAugment, and crops, bicubic resizing and normalisation of their own.
    """
    experiment = imagenet(name, origin, stages)
    return dataclasses.replace(
        experiment,
        data=dataclasses.replace(
            experiment.data,
            crop="efficientnet",
            crop_area=(0.08, 1.0),
            interpolation="bicubic",
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
        ),
        augment=AugmentConfig(policy="autoaugment"),
        evaluation=dataclasses.replace(experiment.evaluation, resize="crop"),
    )


def imagenet_resnet(name: str, stages: tuple[Stage, ...], *, image_size: int) -> Experiment:
    """ImageNet from scratch as EfficientNetV2 is trained, for a ResNet (section 6.2).

    Args:
      image_size: in evaluation, in pixels.
    """
    experiment = imagenet_small("efficientnetv2-s", "paper", stages)
    return dataclasses.replace(
        experiment,
        model=ResNetConfig(name=name, dtype="bfloat16"),
        data=dataclasses.replace(experiment.data, crop="tensorflow"),
        augment=AugmentConfig(policy="randaugment", randaugment_layers=2),
        evaluation=dataclasses.replace(experiment.evaluation, image_size=image_size),
    )


def imagenet_resnet_rs(name: str) -> Experiment:
    """ImageNet from scratch as ResNet-RS was trained (arXiv 2103.07579), as far as it is known."""
    variant, layers = resnet_variant(name), int(name.removeprefix("resnetrs"))
    size = variant.preprocessing.image_size
    last = Stage(
        image_size=size,
        randaugment_magnitude=15.0 if size >= 256 else 10.0,
        dropout_rate=variant.dropout_rate,
    )
    return dataclasses.replace(
        imagenet_resnet(name, (last,), image_size=size),
        model=ResNetConfig(
            name=name, stochastic_depth_rate=0.1 if layers >= 200 else 0.0, dtype="bfloat16"
        ),
        optimizer=SGD(learning_rate=0.1, momentum=0.9, l2=4e-5),
        schedule=Cosine(warmup_epochs=5.0),
    )


def imagenet_deit(name: str) -> Experiment:
    """ImageNet from scratch as DeiT was trained (arXiv 2012.12877), without distillation."""
    size = 224
    stage = Stage(image_size=size, randaugment_magnitude=9.0, mixup_alpha=0.8, cutmix_alpha=1.0)
    experiment = imagenet_small("efficientnetv2-s", "paper", (stage,))
    return dataclasses.replace(
        experiment,
        model=ViTConfig(name=name, stochastic_depth_rate=0.1, dtype="bfloat16"),
        data=dataclasses.replace(experiment.data, crop="torchvision", repeats=3),
        augment=AugmentConfig(
            policy="increasing",
            randaugment_layers=2,
            randaugment_deviation=0.5,
            erasing=0.25,
            mix_per_batch=True,
        ),
        epochs=300,
        batch_size=1024,
        # For 256 examples; DeiT's 5e-4 is for 512.
        optimizer=AdamW(
            learning_rate=2.5e-4, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.05
        ),
        # Shares of the peak, which is 1e-3 for 1,024 examples: from 1e-6, to 1e-5.
        schedule=Cosine(warmup_epochs=5.0, warmup_from=1e-3, final=1e-2),
        ema_decay=None,
        evaluation=dataclasses.replace(experiment.evaluation, image_size=size),
    )


def imagenet21k(name: str, origin: Origin, loss: LossName) -> Experiment:
    """ImageNet21k from scratch (section 5.2): several labels an image, little regularisation."""
    experiment = imagenet(name, origin, (Stage(image_size=224),))
    return dataclasses.replace(
        experiment,
        model=_network(name, origin, stochastic_depth_rate=0.0),
        data=dataclasses.replace(
            experiment.data,
            name="imagenet21k",
            train_split="train[125446:]",
            eval_split="train[100357:125446]",
            num_classes=21_841 if origin == "paper" else 21_843,
            num_train_examples=12_720_275,
            max_labels=32,
        ),
        augment=AugmentConfig(policy="none"),
        epochs=60,
        optimizer=dataclasses.replace(RMSPROP, learning_rate=0.008),
        schedule=Cosine(warmup_epochs=1.0),
        loss=loss,
        label_smoothing=0.0,
        evaluation=EvaluationConfig(
            image_size=224, resize="crop", batch_size=1024, every_epochs=5.0
        ),
    )


def fine_tune(
    name: str, origin: Origin, init: str, data: DataConfig, *, image_size: int | None = None
) -> Experiment:
    """From weights to another data set (sections 5.2 and 5.3): few steps, little regularisation.

    15 epochs, or 10,000 steps where those are more. Pictures are squashed to a square, and half of
    a side of each is hidden under a square of noise.

    Args:
      origin: of the code it leaves out two things: its noise in place of the hidden square covers
        the brighter half of the range only, and its BatchNorm is over groups of replicas.
      init: see `Experiment.init`.
      data: the set, its `num_train_examples` stated; how its pictures are cropped and normalised
        follows from this recipe.
      image_size: in training and evaluation; None takes the size the model is evaluated at.

    Raises:
      ConfigError: the number of training examples is not stated.
    """
    size = image_size or get_variant(name).eval_size
    batch, least_steps = 512, 10_000
    if data.num_train_examples is None:
        raise ConfigError("data.num_train_examples must be stated, to count epochs by")
    epochs = max(15.0, least_steps * batch / data.num_train_examples)
    return Experiment(
        init=init,
        model=EfficientNetConfig(
            name=name,
            stochastic_depth_rate=0.2,
            bn_momentum=BN_MOMENTUM[origin],
            bn_group=None,
            dtype="bfloat16",
        ),
        data=dataclasses.replace(
            data,
            crop="none",
            interpolation="bilinear",
            mean=(127.5, 127.5, 127.5),
            std=(127.5, 127.5, 127.5),
        ),
        augment=AugmentConfig(policy="none", cutout=0.5),
        stages=(Stage(image_size=size),),
        epochs=epochs,
        batch_size=batch,
        optimizer=dataclasses.replace(
            RMSPROP, learning_rate=0.0005, l2=0.0 if origin == "paper" else 1e-5
        ),
        schedule=Cosine(warmup_epochs=1.0) if origin == "paper" else Constant(warmup_epochs=1.0),
        loss="softmax",
        label_smoothing=0.1,
        ema_decay=0.9996,
        evaluation=EvaluationConfig(
            image_size=size, resize="squash", batch_size=512, every_epochs=epochs / 10
        ),
    )


TRANSFER_MODELS = ("s", "m", "l", "xl", "b0", "b1", "b2", "b3")
"""Of EfficientNetV2, the first being what a transfer config takes without an argument."""


def transfer(model: str, origin: Origin, data: DataConfig) -> Experiment:
    """From ImageNet's weights to a small data set (section 5.3).

    Args:
      model: one of `TRANSFER_MODELS`. XL has no weights from ImageNet alone, and takes those from
        ImageNet21k.
      data: see `fine_tune`.
    """
    return fine_tune(
        f"efficientnetv2-{model}",
        origin,
        "in21k-ft1k" if model == "xl" else "in1k",
        data,
        image_size=288 if model == "b3" else None,
    )
