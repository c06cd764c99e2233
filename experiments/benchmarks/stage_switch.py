"""What the switch to the next stage costs a run, and what a restart costs.

    python experiments/benchmarks/stage_switch.py --config=configs/quickstart.py --steps=200

Every stage is shortened to `--steps` steps, and the run is made with the program's own parts in two
ways, in turn and each in a process of its own: in the background, as the program does it, where
all stages and the evaluation compile from the start and the next stage's pictures are read before
the present one ends; inline, where a stage's step compiles and its input opens when the stage
begins. A switch costs the time from the end of a stage's last step to the end of the next one's
first, less an ordinary step of the latter (the median). Where the stages are too short to compile
another meanwhile, the switch waits for it. With few cores, compilation slows the steps beside it:
that is in the whole run's time, and in `lost_seconds`, what the run took beyond its steps when
nothing compiles beside them; `processor_seconds` are those of all threads together. `--apart` keeps
one processor for the steps, in place of an accelerator. Nothing is cached here.

A restart is timed from the start of the process, in the middle of the config's own run, from a
checkpoint to the end of the first step: with an empty compilation cache, and with the one that the
process before filled. Prints JSON: medians, their ranges, ratios within each round; `--output=FILE`
keeps it.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from apart import keep_apart

from effnetv2_jax.cli.command_line import parse
from effnetv2_jax.config.experiment import Experiment
from effnetv2_jax.data import Unreadable, Workers, make_workers, open_source
from effnetv2_jax.outputs.checkpoints import Checkpoints
from effnetv2_jax.outputs.progress import Progress
from effnetv2_jax.outputs.writers import Writers
from effnetv2_jax.parallel import startup
from effnetv2_jax.parallel.mesh import make_mesh
from effnetv2_jax.progressive import Plan, PlannedStage
from effnetv2_jax.system.machine import describe_machine
from effnetv2_jax.train.compilation import Programs
from effnetv2_jax.train.feed import Feed, TrainingData, feed
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.schedule import learning_rate
from effnetv2_jax.train.state import TrainState, abstract_state, build_model, create_state, key_of
from effnetv2_jax.train.step import TrainStep, as_float32, make_train_step, step_values
from effnetv2_jax.train.step_log import StepLog

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
SIDES = ("background", "inline")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--apart", action="store_true", help="steps on a processor of their own")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--part", choices=[*SIDES, "save", "restart"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    command = parse([sys.argv[0], *rest, "--mode=plan"])
    assert not isinstance(command, str)
    if options.part:
        startup.start()
        if options.apart:
            keep_apart()
        parts = Parts(command.experiment, options.folder)
        match options.part:
            case "save":
                print(json.dumps(parts.save()))
            case "restart":
                print(json.dumps(parts.restart()))
            case side:
                print(json.dumps(parts.run(options.steps, background=side == "background")))
        return

    runs: dict[str, list[Any]] = {side: [] for side in SIDES}
    restarts: dict[str, list[float]] = {"empty_cache": [], "warm_cache": []}
    with tempfile.TemporaryDirectory() as folder:
        start_part("save", folder, cache="")
        for index in range(options.rounds):
            for side, found in runs.items():
                found.append(start_part(side, folder, cache=""))
            for times in restarts.values():
                times.append(start_part("restart", folder, cache=f"{folder}/cache{index}")["first"])

    # Only now, since it takes hold of the devices.
    result = describe_machine(PACKAGES) | {
        "command": " ".join(["python", *sys.argv]),
        "rounds": options.rounds,
        "steps_per_stage": options.steps,
        "switches": switches(runs),
        **whole_runs(runs),
        "restart": {name: spread("seconds_to_first_step", t, 2) for name, t in restarts.items()},
        **ratio("warm_over_empty_cache", restarts["warm_cache"], restarts["empty_cache"]),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


def start_part(part: str, folder: str, *, cache: str) -> Any:
    """Runs one part in a process; `ends` and `first` become seconds since the process's start."""
    command = [sys.executable, __file__, *sys.argv[1:], f"--part={part}", f"--folder={folder}"]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
    began = time.time()
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout
    result = json.loads(done)
    if "ends" in result:
        result["ends"] = [end - began for end in result["ends"]]
        result["first"] = result["ends"][0]
    return result


class Parts:
    """What `effnetv2_jax.train.loop` puts together."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self._experiment = experiment
        self._folder = folder
        self._mesh = make_mesh()
        self._source = open_source(experiment.data, "train")
        self._model = build_model(experiment, len(self._source.class_names))
        self._optimizer = make_optimizer(experiment)
        self._key = key_of(experiment.seed)
        self._train_step = make_train_step(experiment, self._model, self._optimizer, self._mesh)

    def run(self, steps: int, *, background: bool) -> dict[str, Any]:
        """Trains all stages from the start; returns the stages and when each step ended."""
        experiment, clock = self._experiment, Clock()
        plan = shortened(experiment, steps)
        state = create_state(experiment, self._model, self._optimizer, self._mesh)
        with contextlib.ExitStack() as stack:
            workers = stack.enter_context(make_workers(experiment.data))
            if background:
                programs = stack.enter_context(contextlib.closing(self._compile(plan, state, 0)))
                step_of: Callable[[PlannedStage], TrainStep] = programs.train_step
                feeds = [self._feed(plan, 0, workers)]
            else:
                step_of = lambda planned: self._train_step  # noqa: E731
                feeds = [
                    self._feed(Plan((each,)), each.first_step, workers) for each in plan.stages
                ]
            writers = stack.enter_context(Writers(self._folder / "log", experiment.log, step=0))
            progress = Progress(enabled=False)
            step_log = StepLog(plan, writers, progress, every_steps=experiment.log.every_steps)
            for steps_of_feed in feeds:
                for step, planned, batch in stack.enter_context(contextlib.closing(steps_of_feed)):
                    if step == planned.first_step:
                        step_log.flush()
                    rate = learning_rate(experiment, plan, step, num_examples=len(self._source))
                    values = step_values(planned.stage, rate)
                    train_step = step_of(planned)
                    state, metrics = train_step(state, batch, as_float32(values), self._key)
                    clock.step(metrics)
                    step_log.step(step + 1, planned, values, metrics)
            step_log.flush()
            ends = clock.ends()
        return {
            "ends": ends,
            "processor": time.process_time(),
            "stages": [
                {
                    "image_size": each.stage.image_size,
                    "first_step": each.first_step,
                    "end_step": each.end_step,
                }
                for each in plan.stages
            ],
        }

    def save(self) -> dict[str, Any]:
        """Saves a checkpoint in the middle of the run."""
        state = create_state(self._experiment, self._model, self._optimizer, self._mesh)
        done = self._plan().total_steps // 2
        state = dataclasses.replace(state, step=jnp.full_like(state.step, done))
        with self._checkpoints() as checkpoints:
            checkpoints.save(done, state.to_dict())
        return {}

    def restart(self) -> dict[str, Any]:
        """Goes on from the checkpoint; returns when the first step ended."""
        plan, clock = self._plan(), Clock()
        with self._checkpoints() as checkpoints:
            like = abstract_state(self._experiment, self._model, self._optimizer, self._mesh)
            state = TrainState.from_dict(checkpoints.restore(like.to_dict()))
        start = int(state.step)
        with (
            make_workers(self._experiment.data) as workers,
            contextlib.closing(self._feed(plan, start, workers)) as steps,
            contextlib.closing(self._compile(plan, state, start)) as programs,
        ):
            _, planned, batch = next(steps)
            step = programs.train_step(planned)
            values = as_float32(step_values(planned.stage, 0.01))
            _, metrics = step(state, batch, values, self._key)
            clock.step(metrics)
            ends = clock.ends()
            for planned in plan.stages:
                if planned.end_step > start:
                    programs.train_step(planned)  # The cache holds them all in the end.
        return {"ends": ends}

    def _plan(self) -> Plan:
        return self._experiment.plan(len(self._source))

    def _checkpoints(self) -> Checkpoints:
        return Checkpoints(self._folder / "checkpoints", self._experiment.checkpoint)

    def _compile(self, plan: Plan, state: Any, start: int) -> Programs:
        parts = self._experiment, self._model, self._optimizer
        return Programs(*parts, plan, state, self._mesh, start=start)

    def _feed(self, plan: Plan, start: int, workers: Workers | None) -> Generator[Feed, None, None]:
        data = TrainingData(
            source=self._source,
            config=self._experiment.data,
            preprocessing=self._model.preprocessing,
            plan=plan,
            seed=self._experiment.seed,
            unreadable=Unreadable(self._experiment.data.max_unreadable),
            workers=workers,
        )
        return feed(data, self._mesh, start=start)


def shortened(experiment: Experiment, steps: int) -> Plan:
    """The experiment's stages, of `steps` steps each."""
    stages = tuple(
        dataclasses.replace(stage, share=float(stage.batch_size or experiment.batch_size))
        for stage in experiment.stages
    )
    examples = round(steps * sum(stage.share for stage in stages))
    return dataclasses.replace(experiment, stages=stages, epochs=1.0).plan(examples)


class Clock:
    """When each step ended. A thread of its own waits for that, so that nothing else has to."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1)
        self._ends: list[float | Future[float]] = []

    def step(self, metrics: Any) -> None:
        """Takes what a step returned, which may still be computing."""
        ready = all(value.is_ready() for value in metrics.values())
        self._ends.append(time.time() if ready else self._executor.submit(end_of, metrics))

    def ends(self) -> list[float]:
        """Of all steps, in seconds since the epoch; waits for the last one."""
        return [end if isinstance(end, float) else end.result() for end in self._ends]


def end_of(metrics: Any) -> float:
    jax.block_until_ready(metrics)
    return time.time()


def switches(runs: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """A row for each boundary between stages."""
    rows = []
    for index, stage in enumerate(runs["background"][0]["stages"][1:], 1):
        row = {"to_stage": index + 1, "image_size": stage["image_size"]}
        for side, found in runs.items():
            steps = [ordinary_step(run, stage) for run in found]
            first = stage["first_step"]
            gaps = [run["ends"][first] - run["ends"][first - 1] for run in found]
            lost = [gap - step for gap, step in zip(gaps, steps, strict=True)]
            in_steps = [a / b for a, b in zip(lost, steps, strict=True)]
            row |= spread(f"{side}_seconds", lost, 3)
            row |= spread(f"{side}_steps", in_steps, 1)
            row |= spread(f"{side}_ordinary_step_ms", [1000 * step for step in steps], 1)
        rows.append(row)
    return rows


def whole_runs(runs: dict[str, list[Any]]) -> dict[str, Any]:
    """Seconds of the runs of each side, and how the sides compare."""
    first = {side: [run["first"] for run in found] for side, found in runs.items()}
    whole = {side: [run["ends"][-1] for run in found] for side, found in runs.items()}
    bare = [
        sum(ordinary_step(run, s) * (s["end_step"] - s["first_step"]) for s in run["stages"])
        for run in runs["inline"]
    ]
    table = {
        side: spread("seconds_to_first_step", first[side], 2)
        | spread("whole_run_seconds", whole[side], 2)
        | spread("lost_seconds", [a - b for a, b in zip(whole[side], bare, strict=True)], 2)
        | spread("processor_seconds", [run["processor"] for run in found], 1)
        for side, found in runs.items()
    }
    return {
        "runs": table,
        **ratio("background_over_inline_to_first_step", first["background"], first["inline"]),
        **ratio("background_over_inline_whole_run", whole["background"], whole["inline"]),
    }


def ordinary_step(run: dict[str, Any], stage: dict[str, int]) -> float:
    """Seconds of a step of a stage that is not its first."""
    ends = run["ends"][stage["first_step"] : stage["end_step"]]
    return statistics.median(b - a for a, b in itertools.pairwise(ends))


def spread(name: str, values: Sequence[float], digits: int) -> dict[str, Any]:
    """Median and range."""
    ends = [round(min(values), digits), round(max(values), digits)]
    return {name: round(statistics.median(values), digits), f"{name}_range": ends}


def ratio(name: str, above: Sequence[float], below: Sequence[float]) -> dict[str, Any]:
    return spread(name, [a / b for a, b in zip(above, below, strict=True)], 3)


if __name__ == "__main__":
    main()
