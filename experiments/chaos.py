"""Kills and preempts a small run at all times, and compares its end with that of one left in peace.

    python experiments/chaos.py --kills=25 --terms=20 --output=experiments/results/chaos_cpu.json

Four stages in one process, and with a fifth of the signals in two that meet over loopback. SIGKILL
and SIGTERM come at random steps, while a checkpoint is written, around a change of stage, during
startup and during an evaluation, to each process of two and to both. Fails if a run loses more than
the steps since its last checkpoint, or after SIGTERM any, takes longer to end than it is given, or
ends with other parameters or metrics. Prints JSON: where the signals hit, seconds to the end and to
the first step of the next start, hashes of the final parameters, machine and versions.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from effnetv2_jax.system.machine import describe_machine

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from chaos.disturb import disturb, planned, summary
from chaos.four_stages import four_stages
from chaos.runs import deterministic, launch, metrics

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--terms", type=int, default=20)
    parser.add_argument("--steps", type=int, default=1000, help="of the run of one process")
    parser.add_argument("--checkpoint_every", type=int, default=12, help="steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="directory for compiled programs, to be kept")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()

    of_two = {"kills": options.kills // 5, "terms": options.terms // 5}
    of_one = {"kills": options.kills - of_two["kills"], "terms": options.terms - of_two["terms"]}
    every, seed = options.checkpoint_every, options.seed
    with tempfile.TemporaryDirectory() as folder:
        cache = options.cache or Path(folder) / "cache"
        runs = [
            compare(Path(folder) / "one", options.steps, every, cache, 1, seed=seed, **of_one),
            compare(Path(folder) / "two", options.steps // 4, every, cache, 2, seed=seed, **of_two),
        ]
    result = {"runs": runs} | describe_machine(PACKAGES)
    text = json.dumps(result | {"command": " ".join(["python", *sys.argv])}, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    if not all(run["same"] for run in runs):
        sys.exit("A disturbed run ended otherwise than the undisturbed one.")


def compare(
    folder: Path, steps: int, every: int, cache: Path, processes: int, **signals: int
) -> dict[str, Any]:
    """Trains twice, left in peace and disturbed."""
    folder.mkdir()
    experiment = four_stages(steps=steps, every_steps=every)
    variables = {"JAX_COMPILATION_CACHE_DIR": str(cache)}

    def tell(message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    start = time.perf_counter()
    undisturbed = folder / "undisturbed"
    launch(experiment, undisturbed, processes=processes, variables=variables).finish()
    peace = time.perf_counter() - start
    tell(f"{steps} steps in {processes} processes left in peace: {peace:.0f} s")
    disturbances = planned(experiment, processes=processes, **signals)
    disturbed = disturb(
        experiment,
        folder / "disturbed",
        disturbances,
        processes=processes,
        variables=variables,
        tell=tell,
    )
    ends = [metrics(folder / name) for name in ("undisturbed", "disturbed")]
    return {
        "processes": processes,
        "steps": steps,
        "checkpoint_every": every,
        "seconds": round(time.perf_counter() - start, 1),
        "params_sha256": [lines[-1]["params_sha256"] for lines in ends],
        "same": deterministic(ends[0]) == deterministic(ends[1]),
        **summary(disturbed),
    }


if __name__ == "__main__":
    main()
