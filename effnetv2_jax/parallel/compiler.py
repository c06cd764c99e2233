"""Options of XLA's compiler that differ from its defaults."""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

CompilerOptions = dict[str, str | bool]

_OPTIONS: dict[str, CompilerOptions] = {
    # Sums by YNNPACK, but convolutions and products of matrices by Eigen, which is up to 4 times
    # as fast on this network's dense kernels and on their gradients. Registers as wide as AVX-512's
    # where there are some: XLA uses half of them, which makes SiLU take a quarter longer.
    "cpu": {
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
        "xla_cpu_prefer_vector_width": "512",
    },
    # Products of matrices by cuBLAS alone: a step takes as long, and a small one compiles in half
    # the time, most of which is the timing of Triton's candidates for squeeze-and-excitation.
    "gpu": {"xla_gpu_enable_triton_gemm": False},
}
"""By platform. What `XLA_FLAGS` sets is the user's to choose."""


def compiler_options(device: jax.Device | None = None) -> CompilerOptions:
    """`compiler_options` of `jax.jit` for a network of this package.

    On the CPU a training step takes about a tenth less time with them, and on a GPU a small one is
    compiled in half the time.

    Args:
      device: one of those that the program is for; None is JAX's default device.
    """
    platform = jax.default_backend() if device is None else device.platform
    flags = os.environ.get("XLA_FLAGS", "")
    return {
        name: value
        for name, value in _OPTIONS.get(platform, {}).items()
        if name not in flags and is_known(name, value, platform)
    }


def jit(function: Callable[..., Any], **arguments: Any) -> Callable[..., Any]:
    """`jax.jit` with the options that suit this package's networks on the present platform.

    The choice is made at the first call. Within another trace, such as another `jit` or a `grad`,
    the function is `jax.jit`'s and the outermost program's options count: XLA takes them for whole
    programs only.

    Args:
      function: as `jax.jit` takes it.
      arguments: of `jax.jit`; its own `compiler_options` go over ours.
    """
    own = arguments.pop("compiler_options", None) or {}
    inner = jax.jit(function, **arguments)

    @functools.cache
    def outermost() -> Callable[..., Any]:
        return jax.jit(function, **arguments | {"compiler_options": compiler_options() | own})

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        # Within another `jit` the constant is traced, even where no argument is.
        leaves = [*jax.tree.leaves((args, kwargs)), jnp.zeros(())]
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
        return (inner if traced else outermost())(*args, **kwargs)

    return call


@functools.cache
def is_known(name: str, value: str | bool, platform: str) -> bool:
    """Whether this version of XLA has the option, with that value."""
    try:
        with jax.default_device(jax.local_devices(backend=platform)[0]):
            jax.jit(lambda: None).lower().compile({name: value})
    except jax.errors.JaxRuntimeError:
        return False
    return True
