"""Trains for long, and watches the process's memory, files, threads and speed from outside.

    python experiments/soak.py --steps=10000 --output=experiments/results/soak_cpu.json

A small network in the program itself, with evaluations and checkpoints as it goes. Asserts nothing:
prints JSON with about 50 samples of the whole series (resident and unique memory in MiB, open
files, threads, images per second), the slopes of memory per 1,000 steps after the warm-up, and the
median speed of the first and the last quarter of the run; machine and versions.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.py"
EXAMPLES = 2016
"""Of the embedded training set."""
BATCH = 8
POINTS = 50
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "psutil")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--warm_up", type=int, default=2_000, help="steps before slopes are taken")
    parser.add_argument("--interval", type=float, default=0.5, help="seconds between samples")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        start = time.perf_counter()
        samples = watch(command(workdir, options.steps), workdir, options.interval)
        seconds = time.perf_counter() - start
        speeds = images_per_second(workdir)
    result = describe(samples, speeds, steps=options.steps, warm_up=options.warm_up)

    # Imported when the run has ended: it asks JAX for its devices, and thereby takes them.
    from effnetv2_jax.system.machine import describe_machine

    result |= {"seconds": round(seconds, 1)} | describe_machine(PACKAGES)
    text = json.dumps(result | {"command": " ".join(["python", *sys.argv])}, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


def command(workdir: Path, steps: int) -> list[str]:
    """The program with a network that takes milliseconds a step."""
    epochs = steps * BATCH / EXAMPLES
    overrides = {
        "epochs": epochs,
        "batch_size": BATCH,
        "model.width": 0.1,
        # All the same, so that the speed at the end compares with that at the beginning.
        **{f"stages[{index}].image_size": 32 for index in range(4)},
        "evaluation.image_size": 40,
        "evaluation.every_epochs": epochs / 20,
        "checkpoint.every_steps": max(1, steps // 50),
        "log.every_steps": max(1, steps // 500),
    }
    return [
        sys.executable,
        "-m",
        "effnetv2_jax.main",
        f"--config={CONFIG}",
        f"--workdir={workdir}",
        *(f"--config.{name}={value}" for name, value in overrides.items()),
    ]


def watch(arguments: list[str], workdir: Path, interval: float) -> list[dict[str, float]]:
    """Runs a command to its end and takes samples of its process, from the first step on."""
    samples: list[dict[str, float]] = []
    with tempfile.TemporaryFile("w+") as output:
        # No pipe: a process that fills one nobody reads would wait.
        process = psutil.Popen(arguments, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            time.sleep(interval)
            step = last_step(workdir)
            if step:
                try:
                    samples.append({"step": step} | sample(process))
                except (psutil.Error, OSError, KeyError):
                    break  # It has just ended.
        if process.wait():
            output.seek(0)
            sys.exit(output.read())
    return samples


def sample(process: psutil.Process) -> dict[str, float]:
    """What a process holds now."""
    return memory(process.pid) | {
        "open_files": process.num_fds(),
        "threads": process.num_threads(),
    }


def memory(pid: int) -> dict[str, float]:
    """Resident and unique memory in MiB, out of one reading: both change from call to call."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kib = {name: int(size) for name, size, *_ in map(str.split, lines)}
    return {
        "rss_mib": round(kib["Rss:"] / 1024, 2),
        "uss_mib": round((kib["Private_Clean:"] + kib["Private_Dirty:"]) / 1024, 2),
    }


def last_step(workdir: Path) -> int:
    """The last step in the log, 0 without one."""
    path = workdir / "metrics.jsonl"
    whole = path.read_text().splitlines(keepends=True) if path.exists() else []
    return next((json.loads(line)["step"] for line in reversed(whole) if line[-1] == "\n"), 0)


def images_per_second(workdir: Path) -> list[tuple[int, float]]:
    """Pairs of a step and the speed up to it."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    name = "train/images_per_second"
    return [(line["step"], line[name]) for line in lines if name in line]


def describe(
    samples: list[dict[str, float]],
    speeds: list[tuple[int, float]],
    *,
    steps: int,
    warm_up: int,
) -> dict[str, Any]:
    """The series, thinned, and what became of it."""
    later = [entry for entry in samples if entry["step"] > warm_up]

    def slope(name: str) -> float | None:
        at = [entry["step"] for entry in later]
        if len(set(at)) < 2:
            return None
        fitted = statistics.linear_regression(at, [entry[name] for entry in later])
        return round(1000 * fitted.slope, 4)

    def speed(first: float, last: float) -> float:
        found = [rate for step, rate in speeds if first * steps < step <= last * steps]
        return round(statistics.median(found), 1)

    quarters = {"first": speed(0, 0.25), "last": speed(0.75, 1)}
    return {
        "steps": steps,
        "warm_up": warm_up,
        "mib_per_1000_steps": {name: slope(name) for name in ("rss_mib", "uss_mib")},
        "images_per_second_of_quarters": quarters,
        "samples": thinned(samples),
        "images_per_second": thinned([[step, round(rate, 1)] for step, rate in speeds]),
    }


def thinned(series: list[Any]) -> list[Any]:
    """About `POINTS` of a series, evenly spaced."""
    return series[:: max(1, len(series) // POINTS)]


if __name__ == "__main__":
    main()
