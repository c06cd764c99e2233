"""Images per second and memory of a bare training step on one GPU, beside timm, in bfloat16.

    python experiments/benchmarks/gpu_step_vs_timm.py --model=efficientnetv2-s --batch=128

At every size of `--sizes`, on one random batch on the device: forward, backward, BatchNorm's
statistics and SGD with momentum. Ours has bfloat16 activations and float32 parameters and is
compiled ahead of time: as a run compiles it; with products of matrices by Triton too; and with
convolutions in XLA's CUDA graphs too, which spares the host their launches. timm's network of the
same name runs channels_last under autocast to bfloat16, eager and through torch.compile
(`--compile-mode`).

The sides of a size take turns, each in a process of its own; compilation is not counted. It takes
one to four minutes a side: `--sides` and `--sizes` pick, `--at-once` says how many get ready at a
time, and what is not ready `--within` some seconds is left out, but for ours and timm's eager one.
All processes stay to the end: three sizes with 128 images take about 100 GiB of the GPU's memory.
All are given the same weights, and their logits in float32 have to agree, at the smallest size.

Of memory it says the allocator's peak from the start of the process (ours) or from before the first
step (timm), and of ours what its program takes by XLA's account.

`--profile=DIR` leaves a trace of ours at the last size there, and prints the 25 HLO instructions
that take most of the time; for that a process of its own runs without CUDA graphs, whose kernels do
not say what they belong to. `--device=cpu --batch=2 --size=32` tries the script without a GPU.

Prints JSON; `--output=FILE` keeps it. Needs the packages `PACKAGES`, and no network.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from step_vs_timm import (
    OurStep,
    TimmStep,
    check_parity,
    faster_of,
    instructions,
    save_weights,
)
from taking_turns import Side, Sides, described, medians, ratio, rounded, write

OURS, EAGER, COMPILED = "ours", "timm eager", "timm compiled"
VARIANTS = {
    "ours, Triton": "--xla_gpu_enable_triton_gemm=true",
    "ours, CUDA graphs": "--xla_gpu_enable_command_buffer=+CONVOLUTION",
}
"""Ours with a flag of XLA's."""
SIDES = [*VARIANTS, EAGER, COMPILED]
ORDER = [COMPILED, OURS, EAGER, *VARIANTS]
"""In which they get ready: what takes longest first."""
PACKAGES = ("jax", "jaxlib", "flax", "optax", "timm", "torch", "triton", "safetensors")
SHOWN = 25
"""HLO instructions of a profile."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="efficientnetv2-s")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--sizes", "--size", default="128,214,300")
    parser.add_argument(
        "--sides",
        nargs="+",
        choices=SIDES,
        default=SIDES,
        help="beside ours",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--compile-mode", default="default")
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--within", type=float)
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if not {EAGER, COMPILED} & set(options.sides):
        parser.error(f"--sides needs {EAGER!r} or {COMPILED!r}")
    # Workers inherit these. JAX and PyTorch have to share the GPU.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if options.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    sizes = [int(size) for size in options.sizes.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        weights = save_weights(options.model, Path(folder))
        shared = {"model": options.model, "batch": options.batch, "weights": weights}
        at_size = [sides_at(options, shared | {"size": size}) for size in sizes]
        sides = [each[kind] for kind in ORDER for each in at_size if kind in each]
        with Sides(sides, at_once=options.at_once, within=options.within) as workers:
            smallest = {kind: named(kind, min(sizes)) for kind in (OURS, EAGER, COMPILED)}
            logits = {
                kind: workers.call(name, "logits")
                for kind, name in smallest.items()
                if name in workers.names
            }
            result: dict[str, Any] = {
                "logits_apart": check_parity(logits),
                "failed": workers.failed,
                "sizes": {str(size): measure(options, workers, size) for size in sizes},
            }
        if options.profile:
            result["profile"] = profile(options, shared | {"size": sizes[-1]})
    names = ("model", "batch", "rounds", "steps", "device", "compile_mode")
    result |= {name: getattr(options, name) for name in names}
    write(result | described(PACKAGES), options.output)


def named(kind: str, size: int) -> str:
    return f"{kind} at {size} px"


def sides_at(options: argparse.Namespace, shared: Mapping[str, Any]) -> dict[str, Side]:
    """The sides at one size, by kind."""
    theirs = {**shared, "device": options.device, "autocast": True}
    compiled = theirs | {"compiled": True, "mode": options.compile_mode}

    def side(kind: str, *, make: type, **fields: Any) -> Side:
        return Side(name=named(kind, shared["size"]), make=make, **fields)

    sides = {
        OURS: side(OURS, make=OurGpuStep, arguments=shared),
        EAGER: side(EAGER, make=TimmStep, arguments=theirs),
        COMPILED: side(COMPILED, make=TimmStep, arguments=compiled, may_fail=True),
    }
    for kind, flag in VARIANTS.items():
        environment = flags(options.device, flag)
        # Not every version of XLA knows them.
        sides[kind] = side(
            kind, make=OurGpuStep, arguments=shared, environment=environment, may_fail=True
        )
    return {kind: side for kind, side in sides.items() if kind in {OURS, *options.sides}}


def measure(options: argparse.Namespace, workers: Sides, size: int) -> dict[str, Any]:
    """All about one size."""
    kinds = {named(kind, size): kind for kind in ORDER}
    names = [name for name in workers.names if name in kinds]
    found = {
        kinds[name]: times
        for name, times in workers.turns(options.rounds, "run", options.steps, names=names).items()
    }
    memory = {kinds[name]: workers.call(name, "peak_bytes") for name in names}
    losses = {kinds[name]: workers.call(name, "last_loss") for name in names}
    first = {kinds[name]: workers.call(name, "seconds_to_first_step") for name in names}
    batch = options.batch
    rates = {name: [batch / seconds for seconds in times] for name, times in found.items()}
    faster = faster_of(found, (EAGER, COMPILED))
    result = {
        # Of rates, unlike that of `step_vs_timm.py`: above 1 is faster.
        "ours_over_faster_timm": ratio(rates[OURS], rates[faster]),
        "faster_timm": faster,
        "ours_over": {s: ratio(rates[OURS], each) for s, each in rates.items() if s != OURS},
        "images_per_second": medians(rates),
        "milliseconds": medians(found, 1e3),
        "peak_mib": {
            name: {what: round(each / 2**20) for what, each in peaks.items()}
            for name, peaks in memory.items()
        },
        "last_loss": losses,
        "seconds_to_first_step": first,
    }
    print(f"{size} px: {result['milliseconds']} ms", file=sys.stderr, flush=True)
    return result


def profile(options: argparse.Namespace, shared: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The instructions that take most of the time, with milliseconds per step."""
    without = flags(options.device, "--xla_gpu_enable_command_buffer=")
    alone = Side(name="ours, traced", make=OurGpuStep, arguments=shared, environment=without)
    with Sides([alone]) as workers:
        slowest: list[dict[str, Any]] = workers.call(
            alone.name, "slowest", options.steps, options.profile
        )
    for each in slowest:
        print(
            f"{each['milliseconds']:9.3f} ms {each['share']:6.1%} {each['instruction']}  "
            f"{each['op_name']}",
            file=sys.stderr,
        )
    return slowest


def flags(device: str, flag: str) -> dict[str, str]:
    """The environment with one more of XLA's flags, on a GPU."""
    present = os.environ.get("XLA_FLAGS", "")
    return {"XLA_FLAGS": f"{present} {flag}".strip() if device == "cuda" else present}


class OurGpuStep(OurStep):
    """Our training step in bfloat16."""

    def __init__(self, model: str, batch: int, size: int, weights: Path) -> None:
        super().__init__(model, batch, size, weights, dtype="bfloat16")

    def peak_bytes(self) -> dict[str, int]:
        """Of the allocator, where it tells (a CPU's does not), and of the program."""
        import jax

        stats = jax.local_devices()[0].memory_stats() or {}
        names = {"allocated": "peak_bytes_in_use", "reserved": "peak_pool_bytes"}
        found = {ours: stats[theirs] for ours, theirs in names.items() if theirs in stats}
        program = self._step.memory_analysis()
        found["program"] = (
            program.argument_size_in_bytes
            + program.output_size_in_bytes
            - program.alias_size_in_bytes
            + program.temp_size_in_bytes
        )
        return found

    def slowest(self, steps: int, folder: Path) -> list[dict[str, Any]]:
        """See `profile`."""
        times = self.instruction_times(steps, folder)
        every = instructions(self.text())
        total = sum(times.values())
        return [
            {
                "instruction": name,
                "milliseconds": rounded(nanoseconds / steps / 1e6),
                "share": round(nanoseconds / total, 4),
                "op_name": every[name].op_name,
                "hlo": every[name].line[:300],
            }
            for name, nanoseconds in sorted(times.items(), key=lambda item: -item[1])[:SHOWN]
        ]


if __name__ == "__main__":
    main()
