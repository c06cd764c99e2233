"""Memory traffic of a training step on TPU v5e, beside plain Flax, without a TPU.

    pip install "jax[tpu]"
    python experiments/benchmarks/tpu_bytes.py --size=128 --size=300

Compiles the bfloat16 training step of EfficientNetV2-S ahead of time for one TPU v5e chip, without
augmentation, and again with `nn.Conv` and `nn.BatchNorm` in place of our layers. Prints, as JSON,
bytes and operations per image as the compiler counts them, temporary memory, and which operations
hold the traffic; `--output=FILE` keeps it. A compilation takes minutes.
"""

import argparse
import collections
import contextlib
import dataclasses
import datetime
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import jax
from plain_flax import plain_flax

from effnetv2_jax.config import AugmentConfig, recipes
from effnetv2_jax.models.efficientnet import EfficientNetConfig
from effnetv2_jax.parallel.topology import find_mesh
from effnetv2_jax.progressive import Stage
from effnetv2_jax.train.compilation import compile_step
from effnetv2_jax.train.costs import needed_memory
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.state import abstract_state, build_model
from effnetv2_jax.train.step import make_train_step

BYTES = {"f64": 8, "s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2}
BYTES |= {"s16": 2, "u16": 2, "s8": 1, "u8": 1, "pred": 1}
MOVES_NOTHING = ("parameter", "tuple", "get-tuple-element", "bitcast", "constant")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="efficientnetv2-s")
    parser.add_argument("--size", type=int, action="append", help="pixels; may be repeated")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--remat", default="none", choices=["none", "blocks"])
    parser.add_argument("--without-plain", action="store_true", help="only ours")
    parser.add_argument("--hlo", type=Path, help="keeps the compiled programs in this folder")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows = []
    for size in options.size or [128, 300]:
        row: dict[str, Any] = {"image_size": size, "ours": measure(options, size, plain=False)}
        if not options.without_plain:
            row["plain_flax"] = measure(options, size, plain=True)
            for name in ("megabytes_per_image", "temporary_gigabytes"):
                ratio = row["ours"][name] / row["plain_flax"][name]
                row[f"{name}_over_plain_flax"] = round(ratio, 3)
        rows.append(row)
    result = {
        "date": datetime.date.today().isoformat(),
        "devices": ["TPU v5e, compiled ahead of time"],
        "versions": {"jax": jax.__version__},
        "command": " ".join(["python", *sys.argv]),
        "model": options.model,
        "batch_size": options.batch,
        "remat": options.remat,
        "sizes": rows,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


def measure(options: argparse.Namespace, size: int, *, plain: bool) -> dict[str, Any]:
    recipe = recipes.imagenet(options.model, "paper", (Stage(image_size=size),))
    experiment = dataclasses.replace(
        recipe,
        model=EfficientNetConfig(
            name=options.model, bn_momentum=0.99, remat=options.remat, dtype="bfloat16"
        ),
        augment=AugmentConfig(policy="none"),
        batch_size=options.batch,
    )
    mesh = find_mesh("v5e:1x1")
    planned = experiment.plan(1_281_167).stages[0]
    start = time.perf_counter()
    with plain_flax() if plain else contextlib.nullcontext():
        model = build_model(experiment, 1000)
        optimizer = make_optimizer(experiment)
        train_step = make_train_step(experiment, model, optimizer, mesh)
        state = abstract_state(experiment, model, optimizer, mesh)
        compiled = compile_step(train_step, planned, state, mesh, max_labels=1)
    seconds = time.perf_counter() - start
    text = compiled.as_text()
    if options.hlo:
        options.hlo.mkdir(exist_ok=True)
        (options.hlo / f"{'plain' if plain else 'ours'}_{size}.txt").write_text(text)
    analysis = compiled.cost_analysis()
    return {
        "megabytes_per_image": round(analysis["bytes accessed"] / options.batch / 1e6, 2),
        "gigaflops_per_image": round(analysis["flops"] / options.batch / 1e9, 2),
        "temporary_gigabytes": round(compiled.memory_analysis().temp_size_in_bytes / 1e9, 3),
        "needed_gigabytes": round(needed_memory(compiled) / 1e9, 3),
        "compile_seconds": round(seconds),
        "traffic": traffic(text, options.batch),
    }


def traffic(text: str, batch: int) -> list[dict[str, Any]]:
    """Megabytes per image by kind of operation, from the sizes of what each reads and writes."""
    sizes: dict[str, int] = {}
    moved: collections.Counter[str] = collections.Counter()
    pattern = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*?)\)(.*)")
    for line in text[text.index("\nENTRY ") :].splitlines():
        match = pattern.match(line)
        if not match:
            continue
        name, shape, operation, operands, rest = match.groups()
        sizes[name] = size_of(shape)
        if operation in MOVES_NOTHING:
            continue
        read = sum(sizes.get(each.split("%")[-1].strip(), 0) for each in operands.split(","))
        path = re.search(r'op_name="([^"]*)"', rest)
        moved[kind_of(operation, path[1] if path else "")] += sizes[name] + read
    total = sum(moved.values())
    return [
        {
            "operations": kind,
            "megabytes_per_image": round(count / batch / 1e6, 2),
            "share": round(count / total, 3),
        }
        for kind, count in moved.most_common()
        if count > 0.002 * total
    ]


def size_of(shape: str) -> int:
    total = 0
    for kind, sides in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shape):
        count = BYTES.get(kind, 0)
        for side in filter(None, sides.split(",")):
            count *= int(side)
        total += count
    return total


def kind_of(operation: str, path: str) -> str:
    if operation.startswith(("copy", "slice", "async", "custom-call")) or not path:
        return "copies and prefetching"
    direction = "backward" if "transpose(" in path else "forward"
    for part, kind in (
        (r"blocks_\d+/depthwise/conv", "depthwise convolution"),
        (r"blocks_\d+/expand/conv", "expanding convolution"),
        (r"blocks_\d+/project/conv", "projecting convolution"),
        (r"/se/", "squeeze-and-excitation"),
        (r"blocks_\d+/\w+/(bn|jit\(silu\)|BatchNorm)", "BatchNorm and SiLU alone"),
        (r"blocks_\d+", "residual sums and the rest of blocks"),
        (r"/stem/", "stem"),
        (r"/(head|classifier)/", "head and classifier"),
    ):
        if re.search(part, path):
            return f"{kind}, {direction}"
    return f"optimizer, averages, loss and the rest, {direction}"


if __name__ == "__main__":
    main()
