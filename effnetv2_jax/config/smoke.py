"""A short stand-in for any run: the same stages and code, in about a minute on two cores."""

import dataclasses

from effnetv2_jax.config.checks import OF_SOURCES
from effnetv2_jax.config.experiment import (
    DataConfig,
    EarlyStoppingConfig,
    Experiment,
    ProbeConfig,
)
from effnetv2_jax.models.registry import family_of

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
    shorter = epochs / (experiment.epochs or 1.0)
    augment, data, evaluation = experiment.augment, experiment.data, experiment.evaluation
    family = family_of(experiment.model.name)
    eval_size = evaluation.image_size or family.variants[experiment.model.name].image_size
    schedule = experiment.schedule
    in_epochs = [f.name for f in dataclasses.fields(schedule) if f.name.endswith("_epochs")]

    def size(pixels: int) -> int:
        return 64 if pixels >= largest else 32

    def batch(examples: int | None) -> int | None:
        whole = experiment.batch_size or examples or 1
        return examples and max(8, BATCH_SIZE * examples // whole // 8 * 8)

    return dataclasses.replace(
        experiment,
        epochs=epochs,
        min_steps=0,
        batch_size=BATCH_SIZE,
        init="",
        probe=ProbeConfig(),
        early_stopping=EarlyStoppingConfig(),
        class_weights=(),
        stages=tuple(
            dataclasses.replace(
                stage,
                share=1.0,
                image_size=size(stage.image_size),
                batch_size=batch(stage.batch_size),
            )
            for stage in experiment.stages
        ),
        model=family.thin(experiment.model),
        augment=dataclasses.replace(augment, mix_group=augment.mix_group and BATCH_SIZE // 2),
        data=dataclasses.replace(
            data,
            source="embedded",
            name="",
            path="",
            train_split="train",
            eval_split="test[:64]",
            sampling="natural",
            num_classes=None,
            num_train_examples=None,
            **{name: getattr(DataConfig(), name) for name in OF_SOURCES},
        ),
        schedule=dataclasses.replace(
            schedule, **{name: getattr(schedule, name) * shorter for name in in_epochs}
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
