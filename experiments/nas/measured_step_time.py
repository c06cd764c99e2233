"""How far measured S can be trusted: its spread, and its order between fresh processes.

    python experiments/nas/measured_step_time.py --output=measured_step_time.json

Six networks of the quickstart search's space are measured against its backbone in several
processes, one after the other: first with the machine as it is, then beside a process that keeps
another core busy. Prints, as JSON, of every process each network's S and spread; how far S differs
between processes; Kendall's tau between pairs of processes; and the same for medians of wall time
alone. The load of the machine is stated: a busy one is what a search has.
"""

import argparse
import contextlib
import datetime
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effnetv2_jax.nas.candidate import with_settings
from effnetv2_jax.nas.rank import kendall
from effnetv2_jax.nas.space import sample, settings

NETWORKS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=3, help="fresh ones of each kind")
    parser.add_argument("--networks", type=int, default=NETWORKS)
    parser.add_argument("--measure", action="store_true", help="what the processes are told")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.networks)))
        return
    command = [sys.executable, __file__, "--measure", f"--networks={options.networks}"]
    kinds = {}
    for kind in ("as it is", "beside a busy process"):
        with busy(kind != "as it is"):
            found = [told_by(command) for _ in range(options.processes)]
        kinds[kind] = summary(found)
    result = {
        "date": datetime.date.today().isoformat(),
        "cores": os.cpu_count(),
        "command": shlex.join(["python", *sys.argv]),
        **kinds,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


def measure(count: int) -> list[dict[str, float]]:
    """Of every network S, its spread and the seconds of its step, in this process."""
    from effnetv2_jax.cli.config_file import find_config_file
    from effnetv2_jax.nas.cost.measured import Measured
    from effnetv2_jax.parallel import startup

    startup.start("off")
    search = find_config_file("configs/search_quickstart.py").execute()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        measured = Measured(search.experiment, kept=folder)
        for seed in range(count):
            picks = sample(search.space, np.random.default_rng(seed))
            network = with_settings(search.experiment, settings(search.space, picks)).model
            ratio = measured.measure(network)
            rows.append(
                {
                    "s": round(ratio.median, 4),
                    "spread": round(ratio.spread, 4),
                    "milliseconds": round(1e3 * ratio.seconds, 2),
                    "load": round(os.getloadavg()[0], 1),
                }
            )
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def told_by(command: Sequence[str]) -> list[dict[str, float]]:
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    rows: list[dict[str, float]] = json.loads(run.stdout.splitlines()[-1])
    return rows


@contextlib.contextmanager
def busy(asked: bool) -> Iterator[None]:
    """Keeps a core busy where it is asked to."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if asked else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


def summary(processes: Sequence[Sequence[dict[str, float]]]) -> dict[str, Any]:
    """Of one kind of process: how far their S, and their wall times, agree."""
    s = [[row["s"] for row in rows] for rows in processes]
    wall = [[row["milliseconds"] for row in rows] for rows in processes]
    return {
        "spread_within_a_process": statistics.median(
            row["spread"] for rows in processes for row in rows
        ),
        "s": agreement(s),
        "wall_time": agreement(wall),
        "load": statistics.median(row["load"] for rows in processes for row in rows),
        "processes": [list(rows) for rows in processes],
    }


def agreement(found: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The largest difference of a network between processes, and the order's least agreement."""
    ranges = [max(values) / min(values) - 1 for values in zip(*found, strict=True)]
    taus = [kendall(one, other) for one, other in itertools.combinations(found, 2)]
    return {
        "median_range": round(statistics.median(ranges), 4),
        "largest_range": round(max(ranges), 4),
        "kendall": [round(tau, 3) for tau in taus],
    }


if __name__ == "__main__":
    main()
