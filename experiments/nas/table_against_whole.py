"""How well a table of blocks predicts the traffic of whole networks, compiled for a TPU v5e.

    pip install "jax[tpu]"
    python experiments/nas/table_against_whole.py --output=table_against_whole.json

Networks of V2-B0's channels draw operator, kernel, expansion and layers for each stage. Six are
spread over what the table predicts, and six lie within 10 % of its median. All are compiled whole
at the same effort as the blocks; none of them helped to find the table's constant. Prints, as JSON,
errors and Kendall's tau, beside activations, multiply-accumulates and parameters. What is compiled
is kept, so that the script goes on where it was stopped; it needs about 10 minutes of two cores.
"""

import argparse
import dataclasses
import datetime
import json
import os
import random
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effnetv2_jax.models.complexity import complexity
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.models.efficientnet.variants import Operator
from effnetv2_jax.models.registry import model_of
from effnetv2_jax.nas import rank
from effnetv2_jax.nas.architecture import network_hash
from effnetv2_jax.nas.cost.compiled import Compiled
from effnetv2_jax.nas.cost.parts_table import PartsTable
from effnetv2_jax.system.machine import versions

REFERENCE = EfficientNetConfig(name="efficientnetv2-b0").written_out()
Pick = tuple[Operator, int, int]
CHOICES: tuple[Pick, ...] = (
    ("fused", 3, 1),
    ("fused", 3, 4),
    ("fused", 5, 4),
    ("mbconv", 3, 4),
    ("mbconv", 3, 6),
    ("mbconv", 5, 6),
)
LAYERS = (1, 1, 2, 2, 3)
DRAWN = 500
WITHIN = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--topology", default="v5e:2x2")
    parser.add_argument("--size", type=int, default=128, help="pixels")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    compiler = Compiled(
        REFERENCE,
        topology=options.topology,
        image_size=options.size,
        batch_size=options.batch,
        threads=options.threads,
    )
    for line in compiler.prepare(covering()):
        print(line, file=sys.stderr, flush=True)
    table = compiler.table(covering())
    rows: list[dict[str, Any]] = []
    for group, network in chosen(table):
        predicted, whole = table.bytes(network), compiler.whole(network)
        row = {
            "network": network_hash(network),
            "group": group,
            "table": spelt(network),
            "predicted_megabytes": round(predicted / 1e6, 2),
            "whole_megabytes": round(whole / 1e6, 2),
            "error": round(predicted / whole - 1, 4),
            **counts(network, options.size),
        }
        print(json.dumps(row), file=sys.stderr, flush=True)
        rows.append(row)
    close = [row for row in rows if row["group"] == "close"]
    errors = [abs(row["error"]) for row in rows]
    sizes = [row["whole_megabytes"] for row in close]
    result = {
        "date": datetime.date.today().isoformat(),
        "devices": ["TPU v5e, compiled ahead of time at the lowest effort"],
        "versions": versions(["jax", "libtpu"]),
        "command": shlex.join(["python", *sys.argv]),
        "image_size": options.size,
        "batch_size": options.batch,
        "source": table.source,
        "median_error": statistics.median(errors),
        "largest_error": max(errors),
        "range_of_the_close": round(max(sizes) / min(sizes) - 1, 4),
        "kendall": {"all": kendall(rows), "close": kendall(close)},
        "load": [round(load, 1) for load in os.getloadavg()],
        "networks": rows,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


def network_of(picks: Sequence[tuple[Pick, int]]) -> EfficientNetConfig:
    rows = (
        dataclasses.replace(
            row,
            operator=operator,
            kernel=kernel,
            expand=expand,
            repeats=repeats,
            se_ratio=0.25 if operator == "mbconv" else 0.0,
        )
        for row, ((operator, kernel, expand), repeats) in zip(
            REFERENCE.stages or (), picks, strict=True
        )
    )
    return dataclasses.replace(REFERENCE, stages=tuple(rows))


def covering() -> list[EfficientNetConfig]:
    """Networks that together have every block."""
    stages = len(REFERENCE.stages or ())
    return [network_of([(choice, 2)] * stages) for choice in CHOICES]


def chosen(table: PartsTable) -> list[tuple[str, EfficientNetConfig]]:
    """Six networks spread over the predictions and six about their median."""
    rng = random.Random(0)
    stages = len(REFERENCE.stages or ())
    drawn = [
        network_of([(rng.choice(CHOICES), rng.choice(LAYERS)) for _ in range(stages)])
        for _ in range(DRAWN)
    ]
    ranked = sorted((table.bytes(network), index) for index, network in enumerate(drawn))
    spread = [ranked[place * (DRAWN - 1) // 5][1] for place in range(6)]
    median = ranked[DRAWN // 2][0]
    near = [index for size, index in ranked if abs(size / median - 1) < WITHIN / 2]
    close = sorted(set(near) - set(spread))[:6]
    return [
        *(("spread", drawn[index]) for index in spread),
        *(("close", drawn[index]) for index in close),
    ]


def counts(network: EfficientNetConfig, size: int) -> dict[str, int]:
    model = model_of(network, num_classes=1000)
    found = complexity(model, height=size, width=size)
    return {
        "activations": found.activations,
        "macs": found.macs,
        "parameters": found.trainable,
    }


def spelt(network: EfficientNetConfig) -> str:
    """Of every stage operator, kernel, expansion and layers."""
    return " ".join(
        f"{row.operator[0].upper()}{row.kernel}e{row.expand}x{row.repeats}"
        for row in network.stages or ()
    )


def kendall(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Kendall's tau of each predictor with the traffic of whole networks."""
    whole = [row["whole_megabytes"] for row in rows]
    names = ("predicted_megabytes", "activations", "macs", "parameters")
    return {name: round(rank.kendall(whole, [row[name] for row in rows]), 3) for name in names}


if __name__ == "__main__":
    main()
