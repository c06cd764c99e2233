"""Images per second of the bare training step and of the whole loop, stage by stage.

    python experiments/benchmarks/train_throughput.py --config=configs/quickstart.py

For every stage, in turn and several times over: the compiled step on one batch that is already on
the devices; the loop as training runs it, with decoding, cropping, transfer and reading of metrics;
that loop on one batch which is decoded already; the input alone, without a step. Prints JSON:
medians, ratios within each round, memory, machine and versions. `--rounds`, `--steps` and
`--stages` set how long it takes; `--apart` keeps one processor for the step, in place of an
accelerator; `--output=FILE` keeps the JSON.
"""

import argparse
import collections
import contextlib
import itertools
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from apart import keep_apart

from effnetv2_jax.cli.command_line import parse
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data import Unreadable, make_workers, open_source
from effnetv2_jax.outputs.progress import Progress
from effnetv2_jax.outputs.writers import Writers
from effnetv2_jax.parallel import startup
from effnetv2_jax.parallel.mesh import make_mesh, put_batch
from effnetv2_jax.progressive import PlannedStage
from effnetv2_jax.system.machine import describe_machine
from effnetv2_jax.train.feed import Feed, TrainingData, feed, host_batches, on_devices
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.state import build_model, create_state, key_of
from effnetv2_jax.train.step import as_float32, make_train_step, step_values
from effnetv2_jax.train.step_log import StepLog

PACKAGES = ("jax", "jaxlib", "flax", "optax", "simplejpeg", "opencv-python-headless")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--stages", type=int, nargs="+", help="their numbers; all without it")
    parser.add_argument("--apart", action="store_true", help="steps on a processor of their own")
    parser.add_argument("--output", type=Path)
    options, rest = parser.parse_known_args()
    command = parse([sys.argv[0], *rest, "--mode=plan"])
    assert not isinstance(command, str)
    startup.start()
    if options.apart:
        keep_apart()
    result = describe_machine(PACKAGES) | {
        "command": " ".join(["python", *sys.argv]),
        "stages": measure(
            command.experiment, options.stages, rounds=options.rounds, steps=options.steps
        ),
        "peak_resident_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


def measure(
    experiment: Experiment, stages: list[int] | None, *, rounds: int, steps: int
) -> list[dict[str, Any]]:
    mesh = make_mesh()
    source = open_source(experiment.data, "train")
    plan = experiment.plan(len(source))
    chosen = [each for each in plan.stages if stages is None or each.index + 1 in stages]
    for planned in chosen:
        if rounds * steps > planned.end_step - planned.first_step:
            raise SystemExit(
                f"stage {planned.index + 1} has {planned.end_step - planned.first_step} steps, "
                f"fewer than {rounds} rounds of {steps}: lower --rounds or --steps"
            )
    model = build_model(experiment, len(source.class_names))
    optimizer = make_optimizer(experiment)
    train_step = make_train_step(experiment, model, optimizer, mesh)
    state = create_state(experiment, model, optimizer, mesh)
    key = key_of(experiment.seed)
    log_dir = tempfile.TemporaryDirectory()

    def rates(planned: PlannedStage, data: TrainingData) -> dict[str, Any]:
        nonlocal state
        images = steps * planned.batch_size
        values = step_values(planned.stage, 0.01)
        arguments = as_float32(values), key
        start = planned.first_step
        with contextlib.closing(host_batches(data, start=start)) as batches:
            decoded = next(batches)
        batch = put_batch(decoded.batch, mesh)
        state, _ = train_step(state, batch, *arguments)  # compiles

        def bare() -> None:
            nonlocal state
            for _ in range(steps):
                state, metrics = train_step(state, batch, *arguments)
            jax.block_until_ready(metrics)

        def loop(coming: Iterator[Feed]) -> None:
            nonlocal state
            for item in itertools.islice(coming, steps):
                state, metrics = train_step(state, item.batch, *arguments)
                step_log.step(item.step + 1, item.planned, values, metrics)
            step_log.flush()
            jax.block_until_ready(state)

        def only_input() -> None:
            for _ in itertools.islice(decoding, steps):
                pass

        found: dict[str, list[float]] = collections.defaultdict(list)
        memory: dict[str, dict[str, int]] = {}
        with (
            contextlib.closing(feed(data, mesh, start=start)) as running,
            contextlib.closing(host_batches(data, start=start)) as decoding,
            Writers(log_dir.name, experiment.log, step=0) as writers,
        ):
            ready = on_devices(itertools.repeat(decoded), mesh)
            step_log = StepLog(plan, writers, Progress(), every_steps=experiment.log.every_steps)
            timed: dict[str, Callable[[], None]] = {
                "bare_step": bare,
                "loop": lambda: loop(running),
                "loop_on_decoded_batches": lambda: loop(ready),
                "input": only_input,
            }
            for _ in range(rounds):
                for name, run in timed.items():
                    found[name].append(images / seconds(run))
                    # In the first round the input has not begun when the bare step runs.
                    memory.setdefault(name, memory_in_use())
        ratios: dict[str, Any] = {}
        for name in ("loop", "loop_on_decoded_batches"):
            of = [a / b for a, b in zip(found[name], found["bare_step"], strict=True)]
            ratios[f"{name}_over_bare_step"] = round(statistics.median(of), 3)
            ratios[f"{name}_over_bare_step_range"] = [round(min(of), 3), round(max(of), 3)]
        return {
            "stage": planned.index + 1,
            "image_size": planned.stage.image_size,
            "batch_size": planned.batch_size,
            "images_per_second": {
                name: round(statistics.median(values), 1) for name, values in found.items()
            },
            **ratios,
            "memory_after_first_round": memory,
        }

    with log_dir, make_workers(experiment.data) as workers:
        data = TrainingData(
            source=source,
            config=experiment.data,
            preprocessing=model.preprocessing,
            plan=plan,
            seed=experiment.seed,
            unreadable=Unreadable(experiment.data.max_unreadable),
            workers=workers,
        )
        return [rates(planned, data) for planned in chosen]


def memory_in_use() -> dict[str, int]:
    """Bytes of this process and, where it tells (a CPU does not), of the first device."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    stats = jax.local_devices()[0].memory_stats() or {}
    device = {name: stats[name] for name in ("bytes_in_use", "peak_bytes_in_use") if name in stats}
    return {"resident_bytes": pages * os.sysconf("SC_PAGE_SIZE"), **device}


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
