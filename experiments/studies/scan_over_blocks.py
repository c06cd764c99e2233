"""What a scan over the equal blocks of a stage would save in compilation, and cost in the step.

    python experiments/studies/scan_over_blocks.py --topology=v5e:1x1 --output=FILE
    python experiments/studies/scan_over_blocks.py --topology=local --dtype=float32 --batch=8

The last stage of EfficientNetV2-S repeats one MBConv 14 times, the longest of its repetitions.
Here it is compiled by itself, forward and both gradients, with BatchNorm's statistics, once as
blocks that follow each other and once as `flax.linen.scan` over one block whose variables are
stacked, and both again with the blocks rematerialised. Prints, as JSON, seconds to trace and to
compile, the size of the program and its temporary memory; with the devices at hand also
milliseconds of a step, the sides in turn. A TPU slice needs no TPU, but `pip install "jax[tpu]"`.
"""

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from effnetv2_jax.models.efficientnet.blocks import MBConv
from effnetv2_jax.parallel.mesh import replicated
from effnetv2_jax.parallel.topology import find_mesh
from effnetv2_jax.system.machine import describe_machine

CHANNELS, EXPAND, SE_RATIO = 256, 6, 0.25


class Block(nn.Module):
    """One block, as a scan calls it."""

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        block = MBConv(
            kernel_size=3,
            stride=1,
            expand=EXPAND,
            outputs=CHANNELS,
            se_ratio=SE_RATIO,
            dtype=self.dtype,
        )
        return block(x, train=True), None


class Repeated(nn.Module):
    """Blocks that follow each other, as the package builds them."""

    block: Callable[..., nn.Module]
    length: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(self.length):
            x, _ = self.block(self.dtype)(x, None)
        return x


class Scanned(nn.Module):
    """The same as a scan."""

    block: Callable[..., nn.Module]
    length: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        blocks = nn.scan(
            self.block,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            length=self.length,
        )
        x, _ = blocks(self.dtype)(x, None)
        return x


SIDES = {
    "repeated": (Repeated, Block),
    "scanned": (Scanned, Block),
    "repeated, rematerialised": (Repeated, nn.remat(Block)),
    "scanned, rematerialised": (Scanned, nn.remat(Block, prevent_cse=False)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--topology", default="local")
    parser.add_argument("--length", type=int, default=14)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=10, help="pixels of the feature maps")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    mesh = find_mesh(options.topology)
    sharding = replicated(mesh)
    found: dict[str, dict[str, Any]] = {}
    steps = {}
    for name, (kind, block) in SIDES.items():
        print(name, file=sys.stderr, flush=True)
        network = kind(block, options.length, jnp.dtype(options.dtype))
        shape = (options.batch, options.size, options.size, CHANNELS)
        x = jax.ShapeDtypeStruct(shape, options.dtype, sharding=sharding)
        variables = jax.eval_shape(network.init, jax.random.key(0), x)
        variables = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), variables
        )

        def step(variables: Any, x: jax.Array, network: nn.Module = network) -> Any:
            def loss_of(params: Any, x: jax.Array) -> Any:
                y, updated = network.apply(
                    {**variables, "params": params}, x, mutable=["batch_stats"]
                )
                return jnp.square(y.astype(jnp.float32)).mean(), updated

            return jax.value_and_grad(loss_of, (0, 1), has_aux=True)(variables["params"], x)

        start = time.perf_counter()
        lowered = jax.jit(step).lower(variables, x)
        traced = time.perf_counter()
        compiled = lowered.compile()
        memory: Any = compiled.memory_analysis()
        found[name] = {
            "trace_seconds": round(traced - start, 1),
            "compile_seconds": round(time.perf_counter() - traced, 1),
            "program_lines": len((compiled.as_text() or "").splitlines()),
            "temporary_megabytes": round(memory.temp_size_in_bytes / 1e6, 1),
        }
        if options.topology == "local":
            # Random numbers, lest there are zeros; the order of the leaves is that of `lower`.
            arrays = jax.tree.map(
                lambda leaf: jax.random.normal(jax.random.key(1), leaf.shape, leaf.dtype),
                (variables, x),
            )
            steps[name] = lambda compiled=compiled, arrays=arrays: compiled(*arrays)
    if steps:
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(options.rounds):
            for name, run in steps.items():
                jax.block_until_ready(run())
                start = time.perf_counter()
                for _ in range(options.steps):
                    jax.block_until_ready(run())
                times[name].append((time.perf_counter() - start) / options.steps)
        for name, each in times.items():
            found[name]["step_milliseconds"] = round(1e3 * statistics.median(each), 1)
    result = {
        **{
            name: getattr(options, name)
            for name in ("topology", "length", "batch", "size", "dtype")
        },
        "sides": found,
        **describe_machine(("jax", "jaxlib", "flax")),
        "compiled_for": f"{mesh.size} {mesh.devices.flat[0].device_kind}",
        "command": shlex.join(["python", *sys.argv]),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
