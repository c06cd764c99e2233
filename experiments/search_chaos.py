"""Kills trials, nodes and coordinators of a search, fills its disk, and compares what is left with
a search left in peace.

    python experiments/search_chaos.py --executor=local
    python experiments/search_chaos.py --executor=ray --trials_are=stubs

As root it runs in a network and mounts of its own, so that Ray binds to loopback and the study has
a small file system to fill; otherwise nothing is filled. A trial is the smallest run of the tests,
or with `--trials_are=stubs` twenty steps of waiting that continue where they were killed. Fails
unless every trial was completed once, with the parameters and the reward it has in peace, and the
proposals and the best are the same. Prints JSON.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from effnetv2_jax.system.machine import cpu_name, versions

ROOT = Path(__file__).parents[1]
PACKAGES = ("jax", "optuna", "ray")
INSIDE = "SEARCH_CHAOS_INSIDE"
MEGABYTES = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executor", choices=["local", "ray"], default="local")
    parser.add_argument("--trials_are", choices=["runs", "stubs"], default="runs")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--kills", type=int, default=25, help="of processes of trials")
    parser.add_argument("--coordinator_kills", type=int, default=5)
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--coordinate", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.coordinate:
        coordinate(options)
        return
    if os.geteuid() == 0 and INSIDE not in os.environ and shutil.which("unshare"):
        arguments = ["unshare", "-nm", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
        again = [*arguments, sys.executable, *sys.argv]
        sys.exit(subprocess.run(again, env=os.environ | {INSIDE: "1"}, check=False).returncode)
    with tempfile.TemporaryDirectory() as folder:
        result = compare(Path(folder), options)
    result |= {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "versions": versions(PACKAGES),
        "command": " ".join(["python", *sys.argv]),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    if not result["same"]:
        sys.exit("The disturbed search ended otherwise than the one left in peace.")


def compare(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Runs the search twice, and says what was done to the second and whether it shows."""
    disk = folder / "disk"
    disk.mkdir()
    own_disk = INSIDE in os.environ
    if own_disk:
        size = ["-o", f"size={MEGABYTES}m"]
        subprocess.run(["mount", "-t", "tmpfs", *size, "tmpfs", str(disk)], check=True)
    try:
        began = time.monotonic()
        status = start(options, folder / "peace").wait()
        peace = time.monotonic() - began
        if status:
            raise RuntimeError(f"the search left in peace ended with {status}")
        done = disturb(options, disk / "study", fill=own_disk)
        left, there = records(folder / "peace"), records(disk / "study")
    finally:
        if own_disk:
            subprocess.run(["umount", str(disk)], check=False)
    return {
        "executor": options.executor,
        "trials_are": options.trials_are,
        "trials": options.trials,
        "same": left == there,
        "differing": sorted(name for name in left | there if left.get(name) != there.get(name)),
        "seconds_in_peace": round(peace, 1),
        **done,
    }


def disturb(options: argparse.Namespace, study: Path, *, fill: bool) -> dict[str, Any]:
    """Runs the search to its end through all that is done to it."""
    generator = random.Random(options.seed)
    kills = coordinators = starts = filled = 0
    began = next_kill = time.monotonic()
    process = None
    while True:
        if process is None:
            process, starts = start(options, study), starts + 1
        time.sleep(0.2)
        if (status := process.poll()) is not None:
            process = None
            if status == 0:
                break
            continue
        now = time.monotonic()
        results = len(list(study.glob("trials/*/trial.json")))
        if fill and not filled and results >= options.trials // 2:
            fill_up(study.parent)
            filled = 1
        if now > next_kill and kills < options.kills and kill_trial(study, generator):
            kills, next_kill = kills + 1, now + options.every
        due = (coordinators + 1) * options.trials // (options.coordinator_kills + 1)
        if coordinators < options.coordinator_kills and results >= due:
            process.kill()
            process.wait()
            process, coordinators = None, coordinators + 1
    return {
        "trials_killed": kills,
        "coordinators_killed": coordinators,
        "starts_of_the_coordinator": starts,
        "disks_filled": filled,
        "nodes_lost": len(list(study.glob("node_lost"))),
        "starts_by_trial": starts_of(study),
        "seconds_disturbed": round(time.monotonic() - began, 1),
    }


def start(options: argparse.Namespace, study: Path) -> "subprocess.Popen[bytes]":
    """A coordinator."""
    study.parent.mkdir(parents=True, exist_ok=True)
    paths = [ROOT, ROOT / "tests", *filter(None, [os.environ.get("PYTHONPATH")])]
    names = ("executor", "trials_are", "trials")
    stated = [f"--{name}={getattr(options, name)}" for name in names]
    return subprocess.Popen(
        [sys.executable, __file__, *stated, f"--coordinate={study}"],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "RAY_AUTH_MODE": "disabled"},
        stdout=sys.stderr,
    )


def coordinate(options: argparse.Namespace) -> None:
    """Is a coordinator: the search's own, with the executor and the trials that are asked for."""
    import searches
    from etils import epath

    from effnetv2_jax.nas.executors.process import TRIAL
    from effnetv2_jax.nas.run import run_search

    stubs = options.trials_are == "stubs"
    command = searches.STUB if stubs else TRIAL
    search = searches.search(trials=options.trials, lag=12, max_deaths=1000, max_failures=8)
    study = epath.Path(options.coordinate)
    if options.executor == "local":
        from effnetv2_jax.nas.executors.local import LocalProcesses

        with contextlib.closing(LocalProcesses(2, command=command)) as local:
            run_search(search, study, local, report=said)
        return
    import ray
    from ray.cluster_utils import Cluster

    from effnetv2_jax.nas.executors.ray import RayTasks, run_process

    node: dict[str, Any] = {"num_cpus": 3, "object_store_memory": 80_000_000}
    head = {**node, "num_cpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(**node) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)

    def task(directory: str) -> None:
        run_process(directory, command)

    def lose_a_node(standing: Any) -> None:
        mark = Path(study) / "node_lost"
        if standing.done > options.trials // 3 and not mark.exists():
            mark.touch()
            cluster.remove_node(nodes[0], allow_graceful=False)
            cluster.add_node(**node)

    with contextlib.closing(RayTasks(6, run=task)) as executor:
        run_search(search, study, executor, report=said, show=lose_a_node)
    cluster.shutdown()


def said(text: str) -> None:
    """What the search reports."""
    print(text, file=sys.stderr, flush=True)


def pids(trial: Path) -> list[int]:
    """The processes that a trial was, by its starts."""
    stub, run = trial / "pids", trial / "starts.jsonl"
    if stub.exists():
        return [int(line) for line in stub.read_text().split()]
    lines = run.read_text().splitlines() if run.exists() else []
    return [json.loads(line)["pid"] for line in lines]


def kill_trial(study: Path, generator: random.Random) -> bool:
    """Kills the process of a trial that runs; whether there was one."""
    running = [path.parent for path in study.glob("trials/*/proposal.json")]
    running = [path for path in running if not (path / "trial.json").exists() and pids(path)]
    # A run is disturbed inside, not while it starts.
    running = [p for p in running if (p / "pids").exists() or (p / "config.json").exists()]
    if not running:
        return False
    try:
        os.kill(pids(generator.choice(running))[-1], signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def fill_up(disk: Path, seconds: float = 8.0) -> None:
    """Leaves a file system no room for a while."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))
    time.sleep(seconds)
    filler.unlink()


def starts_of(study: Path) -> list[int]:
    """How often each trial was started, in their order."""
    trials = sorted(path.parent for path in study.glob("trials/*/trial.json"))
    return [len(pids(trial)) for trial in trials]


def records(study: Path) -> dict[str, Any]:
    """All that a study says, but for what time and place do to it."""
    files = [
        *study.glob("trials/*/proposal.json"),
        *study.glob("trials/*/trial.json"),
        study / "best.json",
    ]
    found = {str(path.relative_to(study)): json.loads(path.read_text()) for path in files}
    for content in found.values():
        content.get("result", content).pop("seconds", None)
    return found


if __name__ == "__main__":
    main()
