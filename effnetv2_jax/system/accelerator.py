"""Which kind of device JAX is going to compute on, told without JAX.

For the defaults of recipes, which are read before JAX may touch a device. `JAX_PLATFORMS` decides
here as it does there.
"""

import functools
import importlib.metadata
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

Platform = Literal["cpu", "gpu", "tpu"]

_GPU_PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin")
_NAMES: dict[str, Platform] = {"cpu": "cpu", "cuda": "gpu", "gpu": "gpu", "rocm": "gpu"}
_NAMES |= {"tpu": "tpu"}


def platform() -> Platform:
    """Of the devices that are here and that the installed JAX can use."""
    asked = os.environ.get("JAX_PLATFORMS", "").split(",")[0].strip().lower()
    if asked in _NAMES:
        return _NAMES[asked]
    if _installed("libtpu") and _any_device("accel[0-9]*", "vfio/[0-9]*"):
        return "tpu"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    if not hidden and any(map(_installed, _GPU_PLUGINS)) and _any_device("nvidia[0-9]*"):
        return "gpu"
    return "cpu"


def fast_dtype() -> Literal["bfloat16", "float32"]:
    """What a network had best compute in: bfloat16 on TPUs and on GPUs from Ampere on.

    CPUs and older GPUs, such as Colab's T4, have no units for it.
    """
    match platform():
        case "tpu":
            return "bfloat16"
        case "gpu":
            return "bfloat16" if _compute_capability() >= 8.0 else "float32"
        case "cpu":
            return "float32"


def _installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _any_device(*patterns: str) -> bool:
    return any(True for pattern in patterns for _ in Path("/dev").glob(pattern))


@functools.cache
def _compute_capability() -> float:
    """The lowest of all NVIDIA GPUs here; 0 if their driver does not say."""
    query: Sequence[str] = ("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
        return min(map(float, found.stdout.split()), default=0.0)
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0.0
