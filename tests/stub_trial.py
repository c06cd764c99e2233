"""A trial that trains nothing: twenty steps of waiting, that continue where they were killed.

    python stub_trial.py DIRECTORY --parent=PID [--cores=CORES]

`$STUB_SECONDS` is what a step takes. Each start leaves its process's number in `pids`.
"""

import os
import sys
import time
from pathlib import Path

import searches
from etils import epath

from effnetv2_jax.nas.records import read_proposal, write_result
from effnetv2_jax.nas.trial import end_with
from effnetv2_jax.outputs.storage import write_text

STEPS = 20


def main() -> None:
    directory = Path(sys.argv[1])
    parent = next(a for a in sys.argv[2:] if a.startswith("--parent="))
    end_with(int(parent.partition("=")[2]))
    trial(directory)


def trial(directory: Path) -> None:
    """What a task of Ray does."""
    if (directory / "trial.json").exists():
        return
    with (directory / "pids").open("a") as pids:
        pids.write(f"{os.getpid()}\n")
    step = directory / "step"
    for done in range(int(step.read_text()) if step.exists() else 0, STEPS):
        time.sleep(float(os.environ.get("STUB_SECONDS", "0.02")))
        write_text(epath.Path(step), str(done + 1))
    proposal = read_proposal(epath.Path(directory))
    write_result(epath.Path(directory), searches.result(proposal))


if __name__ == "__main__":
    main()
