"""S by the clock: the candidate's training step and the reference's, in turn, on the devices here.

    cost = Measured(experiment, kept="study/step_time")
    cost(network)  # 1.3

Wall times of two measurements hours apart scatter far more than networks differ. So the two steps
take turns in one process, and S is the median of the rounds' ratios; what slows the machine down
slows both. Only one process of a machine measures at a time.
"""

import contextlib
import dataclasses
import fcntl
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from etils import epath

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data.report import survey
from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.nas.architecture import digest, network_hash
from effnetv2_jax.nas.cost.kept import Kept
from effnetv2_jax.parallel.mesh import make_mesh, put_batch
from effnetv2_jax.progressive import PlannedStage, uniform
from effnetv2_jax.train.compilation import compile_step
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.state import build_model, create_state, key_of
from effnetv2_jax.train.step import as_float32, make_train_step, step_values

Turn = Callable[[int], float]
"""Runs a step so often, and returns the seconds that took."""


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How long one step takes as a multiple of another's."""

    median: float
    """Of the rounds' ratios: S."""
    spread: float
    """Between their quartiles, as a share of the median."""
    seconds: float
    """Of the one step, at the median."""
    reference_seconds: float
    """Of the other."""
    ratios: tuple[float, ...]
    """Of every round."""


class Measured:
    """A `StepTime`: the time of a network's compiled training step as a multiple of a reference's.

    A network is measured once, and what was found is kept, with its spread, for other processes.
    """

    def __init__(
        self,
        experiment: Experiment,
        *,
        kept: epath.PathLike,
        classes: int | None = None,
        rounds: int = 15,
        turn_seconds: float = 0.2,
    ) -> None:
        """Compiles nothing yet.

        Args:
          experiment: whose training step is measured, with the image size and the batch of its
            last stage; its model is the reference.
          kept: directory, local or `gs://`, of what was measured.
          classes: the data's; None asks the data.
          rounds: turns of each of the two steps, after one that warms up.
          turn_seconds: a turn is so many steps that it takes at least so long.
        """
        self._experiment, self._classes = experiment, classes
        self._rounds, self._turn_seconds = rounds, turn_seconds
        self._kept = Kept(kept)
        self._reference: Turn | None = None

    @property
    def source(self) -> str:
        """What S is, as trials record it."""
        device = jax.devices()[0]
        stage = self._planned
        return (
            f"time of a training step on {jax.device_count()} x {device.device_kind}, in turn with "
            f"{self._experiment.model.name}'s ({network_hash(self._experiment.model)}): "
            f"{stage.batch_size} images of {stage.stage.image_size} pixels"
        )

    def __call__(self, model: ModelConfig) -> float:
        """S of a network, measured unless it has been.

        Raises:
          DataError: the classes have to be counted and the data are missing.
          JaxRuntimeError: the device has too little memory for the two of them.
        """
        if network_hash(model) == network_hash(self._experiment.model):
            return 1.0
        return self.measure(model).median

    def measure(self, model: ModelConfig) -> Ratio:
        """What is kept of a network, or else is measured now; raises as a call does."""
        key = digest({"network": network_hash(model), "source": self.source})
        kept = self._kept.read(key)
        if kept:
            return Ratio(**{**kept["ratio"], "ratios": tuple(kept["ratio"]["ratios"])})
        # Compiling needs no silence; the clock does.
        candidate = self._turn(model)
        if self._reference is None:
            self._reference = self._turn(self._experiment.model)
        with alone():
            ratio = in_turn(
                candidate, self._reference, rounds=self._rounds, turn_seconds=self._turn_seconds
            )
            load = os.getloadavg()[0]
        self._kept.write(
            key,
            {
                "network": network_hash(model),
                "source": self.source,
                "load": load,
                "ratio": dataclasses.asdict(ratio),
            },
        )
        return ratio

    @property
    def _planned(self) -> PlannedStage:
        # Where its steps lie in a run makes no difference.
        stage = uniform(self._experiment.stages, self._experiment.model)[-1]
        return PlannedStage(
            index=0,
            stage=stage,
            batch_size=stage.batch_size or self._experiment.batch_size,
            first_step=0,
            end_step=1,
            first_example=0,
        )

    def _turn(self, network: ModelConfig) -> Turn:
        """Compiles the training step of a network, and holds what it runs on."""
        if self._classes is None:
            self._classes = survey(self._experiment.data).classes
        experiment = dataclasses.replace(self._experiment, model=network)
        planned, classes, mesh = self._planned, self._classes, make_mesh()
        labels, channels = experiment.data.max_labels, network.input_channels
        model, optimizer = build_model(experiment, classes), make_optimizer(experiment)
        state = create_state(experiment, model, optimizer, mesh)
        train_step = make_train_step(experiment, model, optimizer, mesh)
        compiled = compile_step(
            train_step, planned, state, mesh, max_labels=labels, channels=channels
        )
        batch = put_batch(_noise(planned, channels, classes, labels), mesh)
        # The state is to stay finite, since a step that diverges updates nothing.
        values, key = as_float32(step_values(planned.stage, learning_rate=0.0)), key_of(0)

        def turn(steps: int) -> float:
            nonlocal state
            start = time.perf_counter()
            for _ in range(steps):
                state, _metrics = compiled(state, batch, values, key)
            jax.block_until_ready(state)
            return time.perf_counter() - start

        return turn


def _noise(
    planned: PlannedStage, channels: int, classes: int, max_labels: int
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    size, count = planned.stage.image_size, planned.batch_size
    return {
        "image": rng.integers(0, 256, (count, size, size, channels), dtype=np.uint8),
        "labels": rng.integers(0, classes, (count, max_labels), dtype=np.int32),
    }


def in_turn(one: Turn, other: Turn, *, rounds: int, turn_seconds: float = 0.0) -> Ratio:
    """Times two steps in turn, each first in every other round.

    Args:
      rounds: at least 2; steps before them warm up and count for nothing.
      turn_seconds: each turn is at least about so long.
    """
    for turn in (one, other):
        turn(1)
    counts = [max(1, math.ceil(turn_seconds / turn(1))) for turn in (one, other)]
    times: list[tuple[float, float]] = []
    for index in range(rounds):
        order = (0, 1) if index % 2 == 0 else (1, 0)
        found = {side: (one, other)[side](counts[side]) / counts[side] for side in order}
        times.append((found[0], found[1]))
    ratios = tuple(mine / theirs for mine, theirs in times)
    median = statistics.median(ratios)
    low, _, high = statistics.quantiles(ratios, n=4)
    return Ratio(
        median=median,
        spread=(high - low) / median,
        seconds=statistics.median(mine for mine, _ in times),
        reference_seconds=statistics.median(theirs for _, theirs in times),
        ratios=ratios,
    )


@contextlib.contextmanager
def alone(directory: Path | None = None) -> Iterator[None]:
    """Waits until no other process of this user measures on this machine, and keeps them waiting.

    Args:
      directory: of the lock file, which no network file system should hold; None takes the
        system's for temporary files.
    """
    folder = directory or Path(tempfile.gettempdir())
    path = folder / f"effnetv2_jax_measures_{os.getuid()}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
