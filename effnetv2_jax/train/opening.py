"""What a run says of itself before its first step."""

import jax
from jax.sharding import Mesh

from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.outputs.table import align
from effnetv2_jax.progressive import Plan
from effnetv2_jax.system.cores import cores
from effnetv2_jax.system.machine import cpu_name


def describe_devices(mesh: Mesh) -> str:
    """The devices, and the version of JAX."""
    kinds = [device.device_kind for device in mesh.devices.flat]
    counted = ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
    if mesh.devices.flat[0].platform == "cpu":
        counted += f" ({cpu_name()}, {cores()} cores)"
    processes = jax.process_count()
    shared = f", {processes} processes" if processes > 1 else ""
    return f"devices: {counted}{shared}; jax {jax.__version__}"


def describe_network(experiment: Experiment, classes: int, parameters: int, listed: str) -> str:
    """The network, and what it starts from.

    Args:
      parameters: how many.
      listed: the file that lists them.
    """
    start = experiment.init or "random weights"
    return (
        f"{experiment.model.name}, {classes:,} classes: {parameters:,} parameters in "
        f"{experiment.model.dtype}, from {start}; {listed} lists them"
    )


def describe_plan(plan: Plan, epochs: float, num_examples: int) -> list[str]:
    """The stages, a line each, of which only what some stage uses is shown."""
    values = [planned.stage.traced() for planned in plan.stages]
    used = [name for name in values[0] if any(of_stage[name] for of_stage in values)]
    rows = [("stage", "steps", "epochs", "px", "batch", *(name.replace("_", " ") for name in used))]
    for planned, of_stage in zip(plan.stages, values, strict=True):
        steps = planned.end_step - planned.first_step
        rows.append(
            (
                f"{planned.index + 1}/{len(plan.stages)}",
                f"{steps:,}",
                f"{steps * planned.batch_size / num_examples:.3g}",
                f"{planned.stage.image_size}",
                f"{planned.batch_size:,}",
                *(f"{of_stage[name]:.3g}" for name in used),
            )
        )
    return [f"plan: {epochs:g} epochs, {plan.total_steps:,} steps", *align(rows)]
