"""What a training step needs of a device, from the compiled program."""

import dataclasses
import math
import re
import time
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from effnetv2_jax.config.derived import suited_batch
from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.parallel.topology import Limits, limits_of
from effnetv2_jax.progressive import PlannedStage
from effnetv2_jax.train.compilation import compile_step
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.state import abstract_state, build_model
from effnetv2_jax.train.step import make_train_step

_OUT_OF_MEMORY = re.compile(r"Used ([\d.]+)([KMG]) of ([\d.]+)([KMG]) hbm")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclasses.dataclass(frozen=True)
class StepCost:
    """Of one training step, on one of its devices."""

    images: int
    """Examples of a step on a device."""
    memory: int
    """Bytes for arguments, results and all between them."""
    fits: bool
    """False where it is more than a program may use, or the compiler found it so."""
    flops: float | None
    """Operations per image; None if it did not fit."""
    bytes: float | None
    """Bytes moved between memory and processor, per image; None if it did not fit."""
    compile_seconds: float

    def seconds_per_image(self, limits: Limits) -> tuple[float, str] | None:
        """The least time for an image, and what bounds it: `compute` or `memory traffic`."""
        if not (self.flops and self.bytes and limits.flops and limits.bandwidth):
            return None
        return max(
            (self.flops / limits.flops, "compute"),
            (self.bytes / limits.bandwidth, "memory traffic"),
        )


StepCosts = Callable[[PlannedStage], StepCost]


def step_costs(experiment: Experiment, mesh: Mesh, *, num_classes: int) -> StepCosts:
    """A function from a stage to the cost of its step; each call compiles, for minutes on TPU."""
    model = build_model(experiment, num_classes)
    optimizer = make_optimizer(experiment)
    train_step = make_train_step(experiment, model, optimizer, mesh)
    state = abstract_state(experiment, model, optimizer, mesh)
    limits = limits_of(mesh.devices.flat[0])

    def cost(planned: PlannedStage) -> StepCost:
        images = planned.batch_size // mesh.size
        start = time.perf_counter()
        try:
            compiled = compile_step(
                train_step,
                planned,
                state,
                mesh,
                max_labels=experiment.data.max_labels,
                channels=experiment.model.input_channels,
            )
        except Exception as error:
            match = _OUT_OF_MEMORY.search(str(error))
            if not match:
                raise
            used = int(float(match[1]) * _UNITS[match[2]])
            return StepCost(images, used, False, None, None, time.perf_counter() - start)
        seconds = time.perf_counter() - start
        memory, analysis = needed_memory(compiled), compiled.cost_analysis()
        # Of a loop over parts the compiler counts one.
        counted = images // experiment.gradient_accumulation
        return StepCost(
            images=images,
            memory=memory,
            fits=limits.memory is None or memory <= limits.memory,
            flops=analysis["flops"] / counted,
            bytes=analysis["bytes accessed"] / counted,
            compile_seconds=seconds,
        )

    return cost


def needed_memory(compiled: Any) -> int:
    """Bytes that a compiled program needs on a device while it runs, its arguments among them."""
    memory = compiled.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
    )


def largest_batch(
    costs: StepCosts,
    planned: PlannedStage,
    *,
    devices: int,
    unit: int,
    most: int | None = None,
) -> int:
    """The most examples per device, a multiple of `unit`, whose step fits; 0 if not even one unit.

    Doubles the batch until it does not fit, and bisects.

    Args:
      planned: the stage; its own batch is where the search begins.
      most: examples per device beyond which the search need not go; None is endless.
    """
    fits: int = 0
    fails: int | None = None
    guess = max(1, planned.batch_size // devices // unit)
    while fails is None or fails - fits > 1:
        tried = dataclasses.replace(planned, batch_size=guess * unit * devices)
        if costs(tried).fits:
            fits = guess
            if most is not None and fits * unit >= most:
                break
        else:
            fails = guess
        guess = 2 * fits if fails is None else (fits + fails) // 2
    return fits * unit


def fitting_batch(
    experiment: Experiment, mesh: Mesh, *, num_examples: int, num_classes: int
) -> int:
    """The batch for `batch_size=auto`: what suits the number of examples, as far as it fits.

    Compiles the stage of the largest images, but not for a CPU, nor for devices of unknown memory.

    Raises:
      ConfigError: hardly anything fits.
    """
    device, devices = mesh.devices.flat[0], mesh.size
    suited = suited_batch(experiment, num_examples, unit=devices)
    if device.platform == "cpu" or limits_of(device).memory is None:
        return suited
    stated = dataclasses.replace(experiment, batch_size=suited)
    planned = max(stated.plan(num_examples).stages, key=lambda one: one.stage.image_size)
    costs, unit = (
        step_costs(stated, mesh, num_classes=num_classes),
        batch_unit(stated, devices=devices),
    )
    most = largest_batch(costs, planned, devices=devices, unit=unit, most=-(-suited // devices))
    if not most:
        raise ConfigError(
            f"config.batch_size=auto: not even {unit} examples of {planned.stage.image_size} px "
            "fit into the memory of a device; state a smaller batch, or see docs/training.md"
        )
    return min(suited, most * devices)


def batch_unit(experiment: Experiment, *, devices: int) -> int:
    """The step in which a batch per device can grow, whole groups and parts being kept."""
    parts = experiment.gradient_accumulation
    whole = (
        devices * parts,
        parts * experiment.model.example_group,
        experiment.augment.mix_group or 1,
    )
    return math.lcm(8 * devices, *whole) // devices
