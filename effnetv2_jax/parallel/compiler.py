"""What XLA's compiler is told beyond its defaults, and when it is called."""

import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Any

import jax

_CPU: dict[str, str | bool] = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
"""Sums by YNNPACK, but convolutions and products of matrices by Eigen, which is up to 4 times as
fast on this network's dense kernels and on their gradients."""

_one_at_a_time = threading.Lock()


def compile_lowered(lowered: jax.stages.Lowered, device: jax.Device) -> jax.stages.Compiled:
    """Compiles a program with `compiler_options`; on the GPU of a single process no two at a time.

    There XLA times candidates on the device, and two that do so in one process hold each other up:
    the quickstart's first stage compiles in 40 seconds on an H200, and had not after four minutes
    with the second one's beside it. Several processes wait for each other's timings; there nothing
    is held back, lest two of them compile in different orders.

    Args:
      device: one of those that the program is for.
    """
    times_candidates = device.platform == "gpu" and jax.process_count() == 1
    with _one_at_a_time if times_candidates else contextlib.nullcontext():
        return lowered.compile(compiler_options(device))


def compiled_when_called(jitted: Any, device: jax.Device) -> Callable[..., Any]:
    """Calls a function of `jax.jit` by way of `compile_lowered`.

    Args:
      jitted: takes arrays of JAX's alone; is compiled once for their structure, shapes, dtypes and
        shardings.
      device: one of those that it runs on.
    """
    programs: dict[Any, jax.stages.Compiled] = {}

    def call(*arrays: Any) -> Any:
        leaves, structure = jax.tree.flatten(arrays)
        key = structure, *((leaf.shape, leaf.dtype, leaf.sharding) for leaf in leaves)
        if key not in programs:
            programs[key] = compile_lowered(jitted.lower(*arrays), device)
        return programs[key](*arrays)

    return call


def compiler_options(device: jax.Device | None = None) -> dict[str, str | bool]:
    """`compiler_options` of `jax.jit` for a network of this package.

    On the CPU a training step takes about a tenth less time with them; elsewhere there are none.

    Args:
      device: one of those that the program is for; None is JAX's default device.
    """
    platform = jax.default_backend() if device is None else device.platform
    return dict(_known_cpu_options()) if platform == "cpu" else {}


@functools.cache
def _known_cpu_options() -> dict[str, str | bool]:
    """None of them where this version of XLA does not know one."""
    try:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            jax.jit(lambda: None).lower().compile(_CPU)
    except jax.errors.JaxRuntimeError:
        return {}
    return _CPU
