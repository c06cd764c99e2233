"""How long a run leaves its user without a word: to its first line, and longest afterwards.

    python experiments/benchmarks/silence.py --config=configs/quickstart.py:smoke

Starts the training program with the flags given and an empty compilation cache, in a directory of
its own, and notes when its lines come. Prints JSON: seconds to the first line (5 are allowed), the
longest silence (15 are) and the line before it, seconds to the first step and in all.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from effnetv2_jax.system.machine import describe_machine


def lines_of(arguments: Sequence[str], folder: Path) -> list[tuple[float, str]]:
    """Trains, and returns what was said, each line with the seconds since the start."""
    command = [sys.executable, "-m", "effnetv2_jax.main", f"--workdir={folder / 'run'}", *arguments]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    began = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        found = [(time.perf_counter() - began, line.rstrip()) for line in process.stdout]
    if process.returncode:
        sys.exit("\n".join(line for _, line in found))
    return found


def main(arguments: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        said = lines_of(arguments, Path(folder))
    gaps = [(later - sooner, line) for (sooner, line), (later, _) in itertools.pairwise(said)]
    longest, before = max(gaps)
    result = {
        "seconds to the first line": said[0][0],
        "longest silence in seconds": longest,
        "the line before it": before,
        "seconds to the first step": next(at for at, line in said if " | step " in line),
        "seconds in all": said[-1][0],
        **describe_machine(("jax", "jaxlib")),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
