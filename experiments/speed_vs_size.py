"""Speed against size: the networks that EfficientNetV2 is compared with, on the device at hand.

    python experiments/speed_vs_size.py --batch=1 --output=cpu.json
    python experiments/speed_vs_size.py --gpu --output=h100.json
    python experiments/speed_vs_size.py --topology=v5e:4x4 --output=v5e.json
    python experiments/speed_vs_size.py --page

Images per second of a training step and of inference, at the sizes of `benchmarks/networks.py`,
with as many images as fit (or `--batch`); parameters, multiply-accumulates and activations. The
step is the program's own without augmentation, with SGD; timm's network beside it (`--timm`) runs
eager, channels_last, in bfloat16 under autocast where ours is in bfloat16.

`--wave` networks get ready together, each side in a process of its own, and are then timed one
after the other, while nothing compiles. Results are kept after each wave: the same command goes on
with what is missing, and `--passes=2` goes through the list again, so that what the device did
meanwhile shows. `--within` and `--seconds` limit a wave's compilation and the whole.

`--gpu` is for a quarter of an hour with one GPU: bfloat16, waves of 5, 570 seconds, timm beside.

`--counts` leaves the times out, and only counts.

With `--topology` nothing runs: every training step is compiled for these devices, `--batch` images
on each, and its memory, operations and memory traffic are written down. A compilation takes 5 to 15
minutes.

`--page` writes docs/speed_vs_size.md's tables and pictures, from what is kept as
experiments/results/speed_vs_size_NAME.json.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.networks import NETWORKS, Network
from benchmarks.taking_turns import Side, Sides, described

PACKAGES = ("jax", "jaxlib", "flax", "optax", "timm", "torch")
GPU = {"dtype": "bfloat16", "wave": 5, "seconds": 570.0, "within": 150.0, "timm": True}
BENCHMARKS = Path(__file__).parent / "benchmarks"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path)
    parser.add_argument("--networks", help="keys of benchmarks/networks.py, with commas (all)")
    parser.add_argument("--batch", type=int, help="images of a batch; as many as fit")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--wave", type=int, default=1)
    parser.add_argument("--within", type=float, help="seconds for a wave to get ready")
    parser.add_argument("--seconds", type=float, help="after which no wave begins")
    parser.add_argument("--timm", action="store_true", help="timm's networks beside ours")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--topology", help="compile for these devices, such as v5e:4x4")
    parser.add_argument("--counts", action="store_true", help="only count, and time nothing")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    if options.gpu:
        parser.set_defaults(**GPU)
        options = parser.parse_args()
    if options.page:
        from speed_vs_size_page import write_page

        write_page()
        return
    if options.output is None:
        parser.error("--output is missing, where results are kept as they come")
    keys = options.networks.split(",") if options.networks else list(NETWORKS)
    if unknown := sorted(set(keys) - NETWORKS.keys()):
        parser.error(f"--networks has {unknown}; there are {', '.join(NETWORKS)}")
    # Workers inherit these. The sides share the device, and import what lies beside `networks`.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    sys.path.insert(0, str(BENCHMARKS))
    networks = [NETWORKS[key] for key in keys]
    results = Results(options.output)
    if options.counts:
        count_all(networks, results)
    elif options.topology:
        compile_all(options, networks, results)
    else:
        time_all(options, networks, results)
    results.about = described(PACKAGES)
    results.save()


class Results:
    """What was measured, kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        content = json.loads(path.read_text()) if path.exists() else {}
        self.networks: dict[str, Any] = content.get("networks", {})
        self.failed: dict[str, str] = content.get("failed", {})
        self.compiled: dict[str, Any] = content.get("compiled", {})
        self.about: dict[str, Any] = {
            name: value
            for name, value in content.items()
            if name not in ("networks", "failed", "compiled")
        }

    def passes(self, key: str, side: str) -> int:
        """How often a side of a network was measured."""
        return len(self.networks.get(key, {}).get("sides", {}).get(side, {}).get("loads", ()))

    def count(self, key: str, counts: dict[str, int]) -> None:
        """Keeps what a network has and computes, without its times."""
        self.networks.setdefault(key, {"sides": {}}).update(counts)

    def add(self, key: str, side: str, found: dict[str, Any]) -> None:
        """Adds a pass of a side."""
        self.failed.pop(f"{key} {side}", None)
        self.count(key, found.pop("counts", {}))
        network = self.networks[key]
        kept = network["sides"].setdefault(side, {"dtype": found["dtype"], "loads": [], "runs": {}})
        kept["loads"].append(found["load"])
        for kind, run in found["runs"].items():
            # Where a later pass had room for another batch, both stand.
            kept["runs"].setdefault(f"{kind} px, batch {run['batch']}", []).append(
                run["images_per_second"]
            )

    def save(self) -> None:
        """Writes the file anew."""
        content = {
            **self.about,
            "networks": self.networks,
            "failed": self.failed,
            "compiled": self.compiled,
        }
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(content, indent=1) + "\n")
        new.replace(self._path)


def time_all(options: argparse.Namespace, networks: list[Network], results: Results) -> None:
    """Times what is missing, in waves."""
    start = time.monotonic()
    sides = ["ours", "timm"] if options.timm else ["ours"]
    for number in range(options.passes):
        waiting = [
            (network, side)
            for network in networks
            for side in sides
            if results.passes(network.key, side) <= number
        ]
        while waiting:
            if options.seconds and time.monotonic() - start > options.seconds:
                print(f"{len(waiting)} are left: time is up", file=sys.stderr)
                return
            wave = waiting[: options.wave * len(sides)]
            del waiting[: len(wave)]
            left = options.seconds and options.seconds - (time.monotonic() - start)
            limits = [limit for limit in (options.within, left) if limit]
            time_wave(options, wave, results, within=min(limits, default=None))
            results.save()


def time_wave(
    options: argparse.Namespace,
    wave: list[tuple[Network, str]],
    results: Results,
    *,
    within: float | None,
) -> None:
    from benchmarks.timed_network import OurNetwork, TimmNetwork

    makers: dict[str, Any] = {"ours": OurNetwork, "timm": TimmNetwork}
    asked = {f"{network.key} {side}": (network, side) for network, side in wave}
    every = [
        Side(
            name=name,
            make=makers[side],
            arguments={
                "name": network.name if side == "ours" else network.timm,
                "train_sizes": network.timed_sizes,
                "eval_size": network.eval_size,
                "batch": options.batch,
                "dtype": options.dtype,
            },
            may_fail=True,
        )
        for name, (network, side) in asked.items()
    ]
    with Sides(every, at_once=len(every), within=within) as workers:
        for name in workers.names:
            network, side = asked[name]
            load = os.getloadavg()[0]
            try:
                runs = {
                    kind: {
                        "images_per_second": workers.call(name, "rates", kind, options.rounds),
                        "batch": workers.call(name, "kinds")[kind],
                    }
                    for kind in workers.call(name, "kinds")
                }
                counts = workers.call(name, "counts") if side == "ours" else {}
            except Exception as error:
                workers.failed[name] = f"{error}"[:500]
                continue
            finally:
                workers.end(name)  # The next one needs the memory.
            results.add(
                network.key,
                side,
                {"counts": counts, "runs": runs, "load": round(load, 1), "dtype": options.dtype},
            )
            rates = {
                kind: statistics.median(run["images_per_second"]) for kind, run in runs.items()
            }
            print(f"{name}: {rates} images/s", file=sys.stderr, flush=True)
    results.failed |= workers.failed


def count_all(networks: list[Network], results: Results) -> None:
    """Counts what is missing: parameters, multiply-accumulates, activations."""
    from benchmarks.timed_network import counts_of

    from effnetv2_jax import create_model

    for network in networks:
        if "parameters" not in results.networks.get(network.key, {}):
            results.count(network.key, counts_of(create_model(network.name), network.eval_size))
            results.save()


def compile_all(options: argparse.Namespace, networks: list[Network], results: Results) -> None:
    """Compiles what is missing for devices that are not here."""
    from benchmarks.timed_network import experiment_of

    from effnetv2_jax.parallel.topology import find_mesh, limits_of
    from effnetv2_jax.train.costs import step_costs

    mesh = find_mesh(options.topology)
    limits = limits_of(mesh.devices.flat[0])
    batch = options.batch or 16
    found = results.compiled.setdefault(f"{options.topology}, {batch} images on each", {})
    for network in networks:
        for size in network.timed_sizes:
            name = f"{network.key} at {size} px"
            if name in found:
                continue
            experiment = experiment_of(network.name, size, batch * mesh.size, "bfloat16")
            (planned,) = experiment.plan(1_281_167).stages
            cost = step_costs(experiment, mesh, num_classes=1000)(planned)
            bound = cost.seconds_per_image(limits)
            found[name] = dataclasses.asdict(cost) | {
                "bound": None if bound is None else {"seconds": bound[0], "by": bound[1]}
            }
            results.save()
            print(f"{name}: {found[name]}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
