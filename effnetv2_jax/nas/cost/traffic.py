"""Memory traffic of training steps and of single blocks, compiled for a TPU that need not be here.

At the compiler's default effort `bytes accessed` is mostly an account of placement: copies between
HBM and VMEM count at both ends, and the bytes of a network are no sum of its blocks'. At the lowest
effort the fusions are the same, nothing is placed, and bytes add up; a block compiles in seconds.
So what is counted here is the traffic of fusions.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from effnetv2_jax.models.efficientnet.blocks import BLOCKS
from effnetv2_jax.models.efficientnet.config import EfficientNetConfig
from effnetv2_jax.models.layers import ACTIVATIONS, BatchNorm
from effnetv2_jax.models.registry import model_of
from effnetv2_jax.models.shapes import abstract_variables
from effnetv2_jax.nas.cost.parts import Part
from effnetv2_jax.ops.losses import softmax_cross_entropy
from effnetv2_jax.parallel.mesh import by_example, replicated
from effnetv2_jax.parallel.topology import TopologyError, find_mesh

LOWEST_EFFORT = -1.0
DROPPED = 0.1
"""Stochastic depth's rate; any but 0 costs the same."""
_IN_VMEM = "S(1)"
"""In the layout of what the compiler placed there."""


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Of one forward and backward pass over a batch."""

    bytes: float
    """That its fusions read and write."""
    flops: float
    """Operations."""
    seconds: float
    """That tracing and compiling took."""


def one_chip(topology: str) -> Mesh:
    """A mesh of a single chip of a TPU slice such as `v5e:2x2`.

    Raises:
      TopologyError: there is no such slice, or its compiler is missing.
    """
    if topology == "local":
        raise TopologyError(
            "traffic is compiled for a TPU slice such as v5e:2x2; steps on the devices at hand are "
            "measured (search.cost=measured)"
        )
    chips = find_mesh(topology)
    return Mesh(chips.devices.flat[:1], chips.axis_names, axis_types=chips.axis_types)


def part_traffic(part: Part, model: EfficientNetConfig, *, batch: int, mesh: Mesh) -> Traffic:
    """Compiles a block's forward and backward pass, BatchNorm's statistics with it.

    Args:
      model: the network it is of, whose numerics it has.
      batch: examples of a step.
      mesh: of one device, as `one_chip` makes it.
    """
    row, dtype = part.block, jnp.dtype(model.dtype)
    block = BLOCKS[row.operator](
        kernel_size=row.kernel,
        stride=row.stride,
        expand=row.expand,
        outputs=row.outputs,
        se_ratio=row.se_ratio,
        drop_rate=DROPPED,
        activation=ACTIVATIONS[model.activation or "silu"],
        norm=functools.partial(BatchNorm, momentum=model.bn_momentum),
        dtype=dtype,
    )
    size = part.image_size
    x = jax.ShapeDtypeStruct((batch, size, size, part.inputs), dtype)
    kept = jax.ShapeDtypeStruct((batch,), jnp.bool)
    variables = jax.eval_shape(lambda x: block.init(jax.random.key(0), x, False), x)
    outputs = jax.eval_shape(lambda v, x: block.apply(v, x, False), variables, x)

    def step(variables: Any, x: jax.Array, kept: jax.Array, gradient: jax.Array) -> Any:
        def forward(params: Any, x: jax.Array) -> Any:
            return block.apply(
                {**variables, "params": params}, x, True, kept, mutable=["batch_stats"]
            )

        y, backward, statistics = jax.vjp(forward, variables["params"], x, has_aux=True)
        return y, backward(gradient), statistics

    shapes = {"x": x, "kept": kept, "gradient": outputs}
    return _compiled(step, variables, shapes, mesh)


def network_traffic(
    model: EfficientNetConfig, *, classes: int, image_size: int, batch: int, mesh: Mesh
) -> Traffic:
    """Compiles a network's forward and backward pass, with stochastic depth, dropout and loss.

    The optimizer is left out, whose traffic is in proportion to the parameters, and so is
    augmentation, which is the same for all networks.

    Args:
      image_size: height and width, in pixels.
      batch, mesh: as for `part_traffic`.
    """
    network = model_of(model, num_classes=classes)
    shape = (batch, image_size, image_size, model.input_channels)
    images = jax.ShapeDtypeStruct(shape, network.dtype)
    labels = jax.ShapeDtypeStruct((batch, 1), jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    variables = abstract_variables(network, height=image_size, width=image_size)

    def step(whole: Any, images: jax.Array, labels: jax.Array) -> Any:
        variables, key = whole

        def loss_of(params: Any) -> Any:
            logits, statistics = network.apply(
                {**variables, "params": params},
                images,
                train=True,
                rngs={"dropout": jax.random.wrap_key_data(key)},
                mutable=["batch_stats"],
            )
            return softmax_cross_entropy(logits, labels).mean(), statistics

        return jax.value_and_grad(loss_of, has_aux=True)(variables["params"])

    shapes = {"images": images, "labels": labels}
    return _compiled(step, (variables, key), shapes, mesh)


def _compiled(
    step: Callable[..., Any], variables: Any, arrays: Mapping[str, Any], mesh: Mesh
) -> Traffic:
    """Compiles `step(variables, **arrays)`, whose arrays are split by example.

    Raises:
      TopologyError: the compiler takes no notice of the effort asked for.
    """
    start = time.perf_counter()
    everywhere, shared = replicated(mesh), by_example(mesh)
    lowered = jax.jit(step, out_shardings=everywhere).lower(
        _placed(variables, everywhere), **_placed(arrays, shared)
    )
    options: Any = {"exec_time_optimization_effort": LOWEST_EFFORT}
    compiled: Any = lowered.compile(options)
    if _IN_VMEM in compiled.as_text():
        raise TopologyError(
            f"libtpu {version('libtpu')} compiles at full effort although the lowest was asked "
            'for, and its bytes do not add up; pip install "jax[tpu]" brings one that heeds it'
        )
    analysis = compiled.cost_analysis()
    seconds = time.perf_counter() - start
    return Traffic(bytes=analysis["bytes accessed"], flops=analysis["flops"], seconds=seconds)


def _placed(shapes: Any, sharding: jax.sharding.Sharding) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
    )
