"""A short stand-in for any run: the same stages and code, in about a minute on two cores."""

import dataclasses

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.models.efficientnet.variants import get_variant

EMBEDDED_EXAMPLES = 2016
BATCH_SIZE = 16
STEPS = 16
"""Of the run, or one for each stage where there are more."""


def smoke(experiment: Experiment) -> Experiment:
    """Shortens a run without leaving out any of its parts.

    The stages, augmentation, optimizer and the shape of every schedule stay. The network becomes
    thin and shallow, the images 32 or 64 pixels large, since every other size takes another
    compilation, and the batches few; the data is the embedded set. Weights to start from would not
    fit such a network: it starts from random ones.
    """
    largest = max(stage.image_size for stage in experiment.stages)
    stages = len(experiment.stages)
    steps = max(1, STEPS // stages) * stages
    epochs = steps * BATCH_SIZE / EMBEDDED_EXAMPLES
    shorter = epochs / experiment.epochs
    model, augment, data = experiment.model, experiment.augment, experiment.data
    schedule, evaluation = experiment.schedule, experiment.evaluation
    eval_size = evaluation.image_size or get_variant(model.name).eval_size

    def size(pixels: int) -> int:
        return 64 if pixels >= largest else 32

    def batch(examples: int | None) -> int | None:
        return examples and max(8, BATCH_SIZE * examples // experiment.batch_size // 8 * 8)

    return dataclasses.replace(
        experiment,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        init="",
        stages=tuple(
            dataclasses.replace(
                stage,
                share=1.0,
                image_size=size(stage.image_size),
                batch_size=batch(stage.batch_size),
            )
            for stage in experiment.stages
        ),
        model=dataclasses.replace(
            model, width=0.25, depth=0.1, bn_group=model.bn_group and BATCH_SIZE // 2
        ),
        augment=dataclasses.replace(augment, mix_group=augment.mix_group and BATCH_SIZE // 2),
        data=dataclasses.replace(
            data,
            source="embedded",
            name="",
            path="",
            train_split="train",
            eval_split="test[:64]",
            num_classes=None,
            num_train_examples=None,
        ),
        schedule=dataclasses.replace(
            schedule,
            warmup_epochs=schedule.warmup_epochs * shorter,
            decay_epochs=schedule.decay_epochs * shorter,
        ),
        evaluation=dataclasses.replace(
            evaluation,
            image_size=size(eval_size),
            batch_size=32,
            every_epochs=epochs,
            sets=(),
        ),
        checkpoint=dataclasses.replace(experiment.checkpoint, every_steps=steps),
        log=dataclasses.replace(experiment.log, every_steps=1),
    )
