"""What XLA's compiler is told beyond its defaults."""

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
    return {name: value for name, value in _known(platform).items() if name not in flags}


@functools.cache
def _known(platform: str) -> CompilerOptions:
    """Those of the platform's options that this version of XLA knows."""
    if not _OPTIONS.get(platform):
        return {}
    device = jax.local_devices(backend=platform)[0]

    def is_known(option: CompilerOptions) -> bool:
        try:
            with jax.default_device(device):
                jax.jit(lambda: None).lower().compile(option)
        except jax.errors.JaxRuntimeError:
            return False
        return True

    return {name: value for name, value in _OPTIONS[platform].items() if is_known({name: value})}
