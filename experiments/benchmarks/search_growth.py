"""What the coordinator of a search costs with many workers: Ray's, on this machine, that wait.

    python experiments/benchmarks/search_growth.py --trials=1000 --workers=64 --seconds=5

Runs in a network of its own where `unshare` is allowed, so that Ray binds to loopback. Prints JSON:
the coordinator's CPU time for each trial; how long a worker that is free waits for its next trial;
and how long a start takes that finds all trials done, and one that finds one more to do.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from effnetv2_jax.nas import Search, paper_space
from effnetv2_jax.nas.executors.ray import RayTasks
from effnetv2_jax.nas.records import Result, read_proposal, write_result
from effnetv2_jax.nas.study import Study, open_study
from effnetv2_jax.system.machine import cpu_name, versions

sys.path.insert(0, str(Path(__file__).parents[2]))
from configs.search_quickstart import search_quickstart

PACKAGES = ("optuna", "ray", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0, help="that a trial waits")
    parser.add_argument("--sampler", default="evolution")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(epath.Path(folder), options)
    result["command"] = " ".join(["python", *sys.argv])
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


def measure(study: epath.Path, options: argparse.Namespace) -> dict[str, Any]:
    """All that the benchmark says, but for its command."""
    import ray

    base = search_quickstart()
    search = Search(
        experiment=base.experiment,
        space=paper_space(base.experiment.model, layers=(1.0, 2.0)),  # type: ignore[arg-type]
        trials=options.trials,
        sampler=options.sampler,
    )
    ray.init(num_cpus=options.workers, include_dashboard=False, log_to_driver=False)
    with contextlib.closing(RayTasks(options.workers, run=waiting(options.seconds))) as executor:
        cpu, began = time.process_time(), time.monotonic()
        opened = open_study(search, study, workers=options.workers)
        for _ in Study(opened, study, executor, report=_nothing).run():
            pass
        cpu, wall = time.process_time() - cpu, time.monotonic() - began
    gaps = waits(study)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[1],
        "versions": versions(PACKAGES),
        "trials": options.trials,
        "workers": options.workers,
        "seconds_of_a_trial": options.seconds,
        "sampler": options.sampler,
        "seconds": round(wall, 1),
        "coordinator_cpu_ms_per_trial": round(1000 * cpu / options.trials, 2),
        "free_worker_waits_ms_median": round(1000 * statistics.median(gaps), 1),
        "free_worker_waits_ms_95th": round(1000 * float(np.quantile(gaps, 0.95)), 1),
        "restart_seconds_nothing_to_do": restart(opened, study, more=0),
        "restart_seconds_to_the_next_proposal": restart(opened, study, more=1),
    }


def waiting(seconds: float) -> Callable[[str], None]:
    """A trial that trains nothing."""

    def task(directory: str) -> None:
        began = time.time()
        time.sleep(seconds)
        path = epath.Path(directory)
        proposal = read_proposal(path)
        reward = 1 / (1 + int(proposal.hash, 16) % 1000)
        (path / "times.json").write_text(json.dumps([os.getpid(), began, time.time()]))
        write_result(
            path,
            Result(
                number=proposal.number,
                hash=proposal.hash,
                state="complete",
                accuracy=reward,
                step_time=1.0,
                parameters=1,
                relative_parameters=1.0,
                reward=reward,
                seconds=seconds,
            ),
        )

    return task


def waits(study: epath.Path) -> list[float]:
    """Seconds between the end of a trial and the start of the next one in the same worker."""
    times = sorted(json.loads(p.read_text()) for p in Path(study).glob("trials/*/times.json"))
    return [
        began - ended
        for (worker, _, ended), (same, began, _) in itertools.pairwise(times)
        if worker == same
    ]


class Nobody:
    """An executor that is handed a trial and runs none."""

    workers = 1

    def __init__(self) -> None:
        self.handed = False

    def start(self, directory: str) -> None:
        self.handed = True

    def wait(self, seconds: float) -> list[Any]:
        return []

    def close(self) -> None:
        pass


def restart(search: Search, study: epath.Path, *, more: int) -> float:
    """Seconds from nothing until a study has read all its trials, and handed out those to come."""

    began, nobody = time.perf_counter(), Nobody()
    search = dataclasses.replace(search, trials=search.trials + more)
    opened = open_study(search, study, workers=1)
    for _ in Study(opened, study, nobody, report=_nothing).run():
        if nobody.handed:
            break
    return round(time.perf_counter() - began, 2)


def _nothing(text: str) -> None:
    pass


if __name__ == "__main__":
    main()
