"""A search of stub trials on a Ray cluster of two simulated nodes, of which one is lost, and whose
tasks are killed: python stub_ray.py STUDY. Prints what was done to it as JSON.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import ray
import searches
from etils import epath
from ray.cluster_utils import Cluster

from effnetv2_jax.nas.executors.ray import RayTasks
from effnetv2_jax.nas.study import Study, open_study

KILLS = 6


def task(directory: str) -> None:
    """Runs in a worker of Ray's."""
    os.environ["STUB_SECONDS"] = "0.1"
    import stub_trial

    stub_trial.trial(Path(directory))


def main() -> None:
    study = Path(sys.argv[1])
    node: dict[str, Any] = {"num_cpus": 3, "object_store_memory": 80_000_000}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**node, "num_cpus": 0, "include_dashboard": False},
    )
    nodes = [cluster.add_node(**node) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    search = searches.search(trials=16, lag=12)
    kills, lost, next_kill = 0, 0, time.monotonic() + 2
    with contextlib.closing(RayTasks(6, run=task)) as executor:
        opened = open_study(search, epath.Path(study), workers=6)
        trials = Study(opened, epath.Path(study), executor, report=print)
        for standing in trials.run():
            if kills < KILLS and time.monotonic() > next_kill:
                kills += _kill_one(study)
                next_kill = time.monotonic() + 0.7
            if standing.done >= 5 and not lost:
                cluster.remove_node(nodes[0], allow_graceful=False)
                cluster.add_node(**node)
                lost = 1
    cluster.shutdown()
    print(json.dumps({"kills": kills, "nodes_lost": lost}))


def _kill_one(study: Path) -> bool:
    running = [
        path
        for path in study.glob("trials/*/pids")
        if not (path.parent / "trial.json").exists() and path.read_text()
    ]
    if not running:
        return False
    pid = int(random.choice(running).read_text().split()[-1])
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


if __name__ == "__main__":
    main()
