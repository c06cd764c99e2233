"""What it would save and cost to compile repeated blocks once, as a scan, for TPU v5e.

    pip install "jax[tpu]"
    python experiments/benchmarks/scan_blocks.py --size=300

Forward and backward pass through the equal blocks of EfficientNetV2-S's last stage (14 MBConv, 256
channels, bfloat16, 128 images), compiled ahead of time: one after the other as the network has
them, and as `jax.lax.scan` over their stacked parameters. Prints, as JSON, compile time, memory
traffic per image as the compiler counts it (a loop's body as often as it runs), and temporary
memory; `--output=FILE` keeps it.
"""

import argparse
import math
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from taking_turns import described, ratio, rounded, write

from effnetv2_jax.models.blocks import MBConv
from effnetv2_jax.parallel.mesh import replicated
from effnetv2_jax.parallel.topology import find_mesh

BLOCKS, CHANNELS = 14, 256
REDUCTION = 32
"""By which the last stage's feature map is smaller than the image."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    sides = {"repeated": repeated, "scan": scanned}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, side in sides.items():
            found[name].append(measure(side, options.size, options.batch))
    seconds = {name: [each["compile_seconds"] for each in found[name]] for name in sides}
    last = {name: found[name][-1] for name in sides}
    result: dict[str, Any] = {
        name: last[name] | {"compile_seconds": rounded(statistics.median(seconds[name]))}
        for name in sides
    }
    result["scan_over_repeated"] = {"compile_seconds": ratio(seconds["scan"], seconds["repeated"])}
    for what in ("megabytes_per_image", "temporary_megabytes"):
        result[f"{what}_scan_over_repeated"] = rounded(last["scan"][what] / last["repeated"][what])
    result |= {"image_size": options.size, "batch_size": options.batch, "blocks": BLOCKS}
    compiled_for = {"devices": ["TPU v5e, compiled ahead of time"]}
    write(result | described(("jax", "jaxlib", "flax", "libtpu")) | compiled_for, options.output)


def measure(side: Any, size: int, batch: int) -> dict[str, float]:
    mesh = find_mesh("v5e:1x1")
    pixels = math.ceil(size / REDUCTION)
    block = MBConv(
        kernel_size=3, stride=1, expand=6, outputs=CHANNELS, se_ratio=0.25, dtype=jnp.bfloat16
    )
    images = jax.ShapeDtypeStruct((batch, pixels, pixels, CHANNELS), jnp.bfloat16)
    one = jax.eval_shape(lambda key, x: block.init(key, x, False), jax.random.key(0), images)
    stacked = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((BLOCKS, *leaf.shape), leaf.dtype), one
    )

    def loss(params: Any, batch_stats: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        def apply(x: jax.Array, variables: Any) -> tuple[jax.Array, Any]:
            return block.apply(variables, x, True, mutable=["batch_stats"])

        variables = {"params": params, "batch_stats": batch_stats}
        x, updated = side(apply, x, variables)
        return x.astype(jnp.float32).mean(), updated

    step = jax.jit(
        jax.value_and_grad(loss, argnums=(0, 2), has_aux=True), out_shardings=replicated(mesh)
    )
    start = time.perf_counter()
    compiled = step.lower(stacked["params"], stacked["batch_stats"], images).compile()
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    assert memory is not None
    return {
        "compile_seconds": rounded(seconds),
        "megabytes_per_image": rounded(traffic(compiled, side) / batch / 1e6),
        "temporary_megabytes": rounded(memory.temp_size_in_bytes / 1e6),
    }


def repeated(apply: Any, x: jax.Array, variables: Any) -> tuple[jax.Array, Any]:
    updates = []
    for index in range(BLOCKS):
        x, updated = apply(x, jax.tree.map(lambda leaf, index=index: leaf[index], variables))
        updates.append(updated)
    return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *updates)


def scanned(apply: Any, x: jax.Array, variables: Any) -> tuple[jax.Array, Any]:
    return jax.lax.scan(apply, x, variables)


def traffic(compiled: Any, side: Any) -> float:
    """Bytes moved; XLA counts the body of a loop once, and the loops' bodies are nearly all."""
    counted = compiled.cost_analysis()["bytes accessed"]
    return counted * BLOCKS if side is scanned else counted


if __name__ == "__main__":
    main()
