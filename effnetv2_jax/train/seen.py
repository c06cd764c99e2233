"""What the network sees of a stage's first batch: pictures as augmented by that step's own keys."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from effnetv2_jax.augment.mixing import MixedBatch
from effnetv2_jax.augment.places import Part
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data import TrainExamples, Unreadable
from effnetv2_jax.data.batches.examples import make_reader
from effnetv2_jax.progressive import PlannedStage
from effnetv2_jax.train.feed import TrainingData
from effnetv2_jax.train.state import key_of
from effnetv2_jax.train.step import as_float32, keys_of_step, network_input, step_values

COUNT = 12
"""Pictures of a batch."""


class SeenBatch(NamedTuple):
    """Some of a batch, as the network sees it."""

    pixels: NDArray[np.uint8]
    """`[N, S, S, C]`."""
    labels: NDArray[np.int32]
    """`[N, L]`."""
    partner_labels: NDArray[np.int32]
    """`[N, L]`, of what is mixed in."""
    weight: NDArray[np.float32]
    """`[N]`, of the own picture."""


def seen_of(experiment: Experiment, data: TrainingData, planned: PlannedStage) -> SeenBatch:
    """Some of a stage's first batch, as its first step augments, erases and mixes it.

    Every random number follows from the seed, the step and an example's place in its batch, so that
    these few can be made once more, on this machine's CPU, and nothing of the run is touched.

    Raises:
      DataError: they cannot be read.
    """
    examples = TrainExamples(
        order=data.order,
        data=data.config,
        preprocessing=dataclasses.replace(data.preprocessing, image_size=planned.stage.image_size),
        batch_size=planned.batch_size,
        first_example=planned.first_example,
    )
    unreadable = Unreadable(len(data.source), log=False)
    reader = make_reader(data.source, examples, unreadable)
    rows = closed_rows(planned.batch_size, experiment.augment.mix_group)
    made = [examples.row(reader, 0, row) for row in rows]
    batch = {name: np.stack([example[name] for example in made]) for name in made[0]}
    part = Part(rows.start, planned.batch_size)

    def program(
        batch: Mapping[str, jax.Array],
        values: Mapping[str, jax.Array],
        key: jax.Array,
        step: jax.Array,
    ) -> MixedBatch:
        keys = keys_of_step(key, step)
        dtype = experiment.model.dtype
        return network_input(experiment, data.preprocessing, dtype, batch, values, keys, part=part)

    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        values = as_float32(step_values(planned.stage, learning_rate=0.0))
        step = np.int32(planned.first_step)
        found = jax.device_get(jax.jit(program)(batch, values, key_of(experiment.seed), step))
    levels = np.asarray(found.images, np.float32) * np.array(data.preprocessing.std, np.float32)
    levels += np.array(data.preprocessing.mean, np.float32)
    pixels = levels.clip(0, 255).round().astype(np.uint8)
    return SeenBatch(pixels, found.labels, found.partner_labels, found.weight)


def closed_rows(batch_size: int, group: int | None) -> range:
    """`COUNT` rows of a batch, or about as many, whose partners in mixing are among them.

    An example is mixed with its mirror image in its group: those in the middle have each other.
    """
    group = group or batch_size
    first = max(0, (group - COUNT + 1) // 2)
    return range(first, group - first)
