"""What RandAugment adds to the memory traffic of a training step on TPU, without a TPU.

    pip install "jax[tpu]"
    python experiments/benchmarks/augment_bytes.py --size=128 --size=300

Compiles ahead of time for one TPU v5e chip and prints, as JSON, the bytes that the compiler counts
for RandAugment (two layers) on a batch of uint8 images; with `--step` also for the training step of
EfficientNetV2-S without it, and what RandAugment adds to that, which takes minutes per size.
"""

import argparse
import dataclasses
import datetime
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from effnetv2_jax.augment import augment_batch
from effnetv2_jax.config import AugmentConfig, recipes
from effnetv2_jax.parallel.mesh import by_example, replicated
from effnetv2_jax.parallel.topology import find_mesh
from effnetv2_jax.progressive import Stage
from effnetv2_jax.train.compilation import compile_step
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.state import abstract_state, build_model
from effnetv2_jax.train.step import make_train_step

LAYERS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, action="append", help="pixels; may be repeated")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--step", action="store_true", help="compile the training step as well")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    mesh = find_mesh("v5e:1x1")
    rows = []
    for size in options.size or [128, 300]:
        layer = augmentation(mesh, options.batch, size)
        row: dict[str, Any] = {"image_size": size, "randaugment_layer": layer}
        if options.step:
            step = training_step(mesh, options.batch, size)
            added = LAYERS * layer["gigabytes_accessed"] / step["gigabytes_accessed"]
            row |= {"step_without_randaugment": step, "randaugment_adds": round(added, 3)}
        rows.append(row)
    result = {
        "date": datetime.date.today().isoformat(),
        "device": "TPU v5e, compiled ahead of time",
        "jax": jax.__version__,
        "batch_size": options.batch,
        "command": " ".join(["python", *sys.argv]),
        "sizes": rows,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


def augmentation(mesh: Mesh, batch: int, size: int) -> dict[str, float]:
    # Of a scan the compiler counts the body once, however many layers it runs through.
    def run(seed: jax.Array, images: jax.Array, magnitude: jax.Array) -> jax.Array:
        return augment_batch(jax.random.key(seed), images, magnitude, flip=False, layers=1)

    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8, sharding=by_example(mesh))
    seed = jax.ShapeDtypeStruct((), jnp.uint32, sharding=replicated(mesh))
    magnitude = jax.ShapeDtypeStruct((), jnp.float32, sharding=replicated(mesh))
    return cost(jax.jit(run).lower(seed, images, magnitude).compile())


def training_step(mesh: Mesh, batch: int, size: int) -> dict[str, float]:
    stages = (Stage(image_size=size, randaugment_magnitude=10.0),)
    experiment = dataclasses.replace(
        recipes.imagenet("efficientnetv2-s", "paper", stages),
        augment=AugmentConfig(policy="none"),
        batch_size=batch,
    )
    model = build_model(experiment, 1000)
    optimizer = make_optimizer(experiment)
    step = make_train_step(experiment, model, optimizer, mesh)
    state = abstract_state(experiment, model, optimizer, mesh)
    planned = experiment.plan(1_281_167).stages[0]
    return cost(compile_step(step, planned, state, mesh, max_labels=1))


def cost(compiled: Any) -> dict[str, float]:
    analysis = compiled.cost_analysis()
    memory = compiled.memory_analysis()
    return {
        "gigabytes_accessed": round(analysis["bytes accessed"] / 1e9, 3),
        "gigaflops": round(analysis["flops"] / 1e9, 1),
        "temporary_gigabytes": round(memory.temp_size_in_bytes / 1e9, 3),
    }


if __name__ == "__main__":
    main()
