"""What every stage of a run needs of its devices, from its compiled step."""

from collections.abc import Iterator

from effnetv2_jax.config.checks import check_batches
from effnetv2_jax.config.derived import derive
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data.report import survey
from effnetv2_jax.parallel.topology import GIB, Limits, find_mesh, limits_of
from effnetv2_jax.train.costs import StepCost, batch_unit, largest_batch, step_costs


def describe_compiled(
    experiment: Experiment, topology: str, *, search: bool = False
) -> Iterator[str]:
    """Compiles every stage for a topology, and yields the lines of a table as they are ready.

    Args:
      topology: see `find_mesh`.
      search: also finds the largest batch that fits.

    Raises:
      TopologyError: there is no such topology, or its compiler is missing.
      ConfigError: the batches do not divide over its devices.
      DataError: the data has to be counted and is missing.
    """
    mesh = find_mesh(topology)
    device = mesh.devices.flat[0]
    examples, classes, *_ = survey(experiment.data)
    experiment = derive(experiment, examples, unit=mesh.size)
    check_batches(experiment, devices=mesh.size)
    limits = limits_of(device)
    yield f"{mesh.size} x {device.device_kind}, {_gib(limits.memory)} each for a program"
    model, parts = experiment.model, experiment.gradient_accumulation
    remat = f"remat={model.remat}, " if hasattr(model, "remat") else ""
    yield f"{model.name} in {model.dtype}; {remat}gradient_accumulation={parts}"

    costs = step_costs(experiment, mesh, num_classes=classes)
    columns = [*_COLUMNS, *(["largest batch"] if search else [])]
    yield ""
    yield "  ".join(columns)
    found: dict[tuple[int, int], list[str]] = {}
    for planned in experiment.plan(examples).stages:
        key = planned.stage.image_size, planned.batch_size
        if key not in found:
            found[key] = _cells(costs(planned), limits)
            if search:
                unit = batch_unit(experiment, devices=mesh.size)
                most = largest_batch(costs, planned, devices=mesh.size, unit=unit)
                found[key].append(f"{most}" if most else f"below {unit}")
        row = [f"{planned.index + 1}", str(planned.stage.image_size), *found[key]]
        yield "  ".join(cell.rjust(len(name)) for cell, name in zip(row, columns, strict=True))


_COLUMNS = (
    "stage",
    "size",
    "batch/device",
    "     memory",
    "GFLOP/image",
    "MB/image",
    "bound by",
    "images/s/device, estimate",
    "compiled in",
)


def _cells(cost: StepCost, limits: Limits) -> list[str]:
    bound = cost.seconds_per_image(limits)
    return [
        str(cost.images),
        _gib(cost.memory) + ("" if cost.fits else ": too much"),
        "-" if cost.flops is None else f"{cost.flops / 1e9:.3g}",
        "-" if cost.bytes is None else f"{cost.bytes / 1e6:.4g}",
        "-" if bound is None else bound[1],
        "-" if bound is None else f"{1 / bound[0]:,.0f}",
        f"{cost.compile_seconds:.0f} s",
    ]


def _gib(count: int | None) -> str:
    return "memory unknown" if count is None else f"{count / GIB:.2f} GiB"
