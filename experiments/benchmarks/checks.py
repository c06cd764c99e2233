"""What the checks of a run cost: training steps with and without them.

    python experiments/benchmarks/checks.py --config=configs/quickstart.py --steps=100

Of every stage, in turn, on one batch that is already on the devices: the step with what the
program does at every step to notice trouble (a state that a divergence cannot touch, loss and
gradient norm read two steps late, the watchdog, the occasions for signals), and a step compiled
without the first in a loop without the rest. What costs nothing between checkpoints is left out:
the lock, the events, the checksum. The checkpoint's checksum is timed by itself, beside a step.
Prints JSON: medians, and ratios within each round; `--output=FILE` keeps it.
"""

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from taking_turns import medians, ratio, rounded, write

from effnetv2_jax.cli.command_line import parse
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data import open_source
from effnetv2_jax.outputs.state_checksum import state_checksum
from effnetv2_jax.parallel import startup
from effnetv2_jax.parallel.mesh import make_mesh, put_batch
from effnetv2_jax.parallel.preemption import Preemption
from effnetv2_jax.progressive import PlannedStage
from effnetv2_jax.system.machine import describe_machine
from effnetv2_jax.train import step as step_module
from effnetv2_jax.train.compilation import compile_step
from effnetv2_jax.train.divergence import LossWatch
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.state import build_model, create_state, key_of
from effnetv2_jax.train.step import as_float32, make_train_step, step_values
from effnetv2_jax.train.watchdog import Watchdog

PACKAGES = ("jax", "jaxlib", "flax", "optax")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--output", type=Path)
    options, rest = parser.parse_known_args()
    command = parse([sys.argv[0], *rest, "--mode=plan"])
    assert not isinstance(command, str)
    startup.start()
    rows = measure(command.experiment, rounds=options.rounds, steps=options.steps)
    result: dict[str, Any] = {"stages": rows, "rounds": options.rounds, "steps": options.steps}
    result |= describe_machine(PACKAGES) | {"command": " ".join(["python", *sys.argv])}
    write(result, options.output)


def measure(experiment: Experiment, *, rounds: int, steps: int) -> list[dict[str, Any]]:
    mesh = make_mesh()
    source = open_source(experiment.data, "train")
    model = build_model(experiment, len(source.class_names))
    optimizer = make_optimizer(experiment)
    make = functools.partial(make_train_step, experiment, model, optimizer, mesh)
    key = key_of(experiment.seed)

    def row(planned: PlannedStage) -> dict[str, Any]:
        size, count = planned.stage.image_size, planned.batch_size
        rng = np.random.default_rng(0)
        batch = put_batch(
            {
                "image": rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
                "labels": rng.integers(
                    0, len(source.class_names), (count, experiment.data.max_labels), dtype=np.int32
                ),
            },
            mesh,
        )
        state = create_state(experiment, model, optimizer, mesh)
        values = as_float32(step_values(planned.stage, 1e-6))
        options: Any = {"max_labels": experiment.data.max_labels}
        checked = compile_step(make(), planned, state, mesh, **options)

        def always(advance: Any, state: Any, *gradients: Any, metrics: Any) -> Any:
            return advance(state, *gradients)

        with mock.patch.object(step_module, "unless_diverged", always):
            bare = compile_step(make(), planned, state, mesh, **options)
        losses = LossWatch(experiment.faults.loss_spike)

        def without() -> None:
            nonlocal state
            for _ in range(steps):
                state, metrics = bare(state, batch, values, key)
            jax.block_until_ready((state, metrics))

        def with_checks() -> None:
            nonlocal state
            for done in range(1, steps + 1):
                watchdog.now(f"the input of step {done}")
                with preemption.waiting():
                    pass
                watchdog.now(f"step {done}")
                state, metrics = checked(state, batch, values, key)
                for found in losses.step(done, metrics):
                    sys.exit(f"The step to be measured diverges: {found}")
                preemption.check()
            jax.block_until_ready((state, metrics))

        def checksum() -> None:
            for _ in range(steps):
                state_checksum(state)

        sides = {"with": with_checks, "without": without, "checksum": checksum}
        found: dict[str, list[float]] = {name: [] for name in sides}
        with Watchdog(experiment.faults.hang_seconds) as watchdog, Preemption() as preemption:
            for run in sides.values():
                run()
            for index in range(rounds):
                for name in list(sides)[:: -1 if index % 2 else 1]:
                    found[name].append(seconds(sides[name]) / steps)
        return {
            "stage": planned.index + 1,
            "image_size": size,
            "batch_size": count,
            "milliseconds": medians(found, 1e3),
            "with_over_without": ratio(found["with"], found["without"]),
            "checksum_in_steps": rounded(
                statistics.median(found["checksum"]) / statistics.median(found["without"])
            ),
        }

    return [row(planned) for planned in experiment.plan(len(source)).stages]


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
