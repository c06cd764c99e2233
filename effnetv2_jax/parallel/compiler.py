"""Options of XLA's compiler that differ from its defaults."""

import functools
import os

import jax

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


@functools.cache
def is_known(name: str, value: str | bool, platform: str) -> bool:
    """Whether this version of XLA has the option, with that value."""
    try:
        with jax.default_device(jax.local_devices(backend=platform)[0]):
            jax.jit(lambda: None).lower().compile({name: value})
    except jax.errors.JaxRuntimeError:
        return False
    return True
