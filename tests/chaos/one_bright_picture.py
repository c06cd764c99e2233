"""A run that diverges by itself, at the step that trains on one certain picture."""

from pathlib import Path

import numpy as np
import tiny
from PIL import Image

from effnetv2_jax.config.experiment import (
    AugmentConfig,
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    Experiment,
    FaultsConfig,
)
from effnetv2_jax.data import Order, example_keys, open_source
from effnetv2_jax.progressive import Stage

BATCH = 4
STEPS = 100
"""Which are one pass over the pictures."""
EVERY_STEPS = 10
BRIGHT = "bright.png"
SIZE = 32
"""Of pictures, in pixels."""
SCALE = 1e-37
"""Pixels are divided by it: 0 stays 0, and 255 is more than float32 holds."""


def make_pictures(folder: Path) -> None:
    """Writes two classes of black pictures, and among those of the first a white one."""
    for split, count in (("train", BATCH * STEPS), ("val", BATCH)):
        for index in range(count):
            path = folder / split / "ab"[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
            if (split, index) == ("train", 0):
                path, pixels = path.with_name(BRIGHT), np.full_like(pixels, 255)
            Image.fromarray(pixels).save(path)


def experiment(
    folder: Path,
    *,
    seed: int,
    faults: FaultsConfig,
    every_steps: int = EVERY_STEPS,
    max_unreadable: int = 100,
) -> Experiment:
    """One pass over `make_pictures`'s."""
    return tiny.experiment(
        stages=(Stage(image_size=SIZE, dropout_rate=0.1),),
        batch_size=BATCH,
        epochs=1.0,
        seed=seed,
        data=DataConfig(
            source="folder",
            path=str(folder),
            eval_split="val",
            interpolation="bilinear",
            mean=(0.0, 0.0, 0.0),
            std=(SCALE, SCALE, SCALE),
            threads=2,
            max_unreadable=max_unreadable,
        ),
        augment=AugmentConfig(policy="none"),
        evaluation=EvaluationConfig(image_size=SIZE, batch_size=BATCH, every_epochs=100.0),
        checkpoint=CheckpointConfig(every_steps=every_steps),
        faults=faults,
    )


def bright_step(run: Experiment) -> int:
    """The step, counted from 1, that trains on the white picture in the run's first order."""
    source = open_source(run.data, "train")
    keys = example_keys(source, Order(len(source), run.seed), range(len(source)))
    (position,) = [index for index, key in enumerate(keys) if BRIGHT in key]
    return position // BATCH + 1
