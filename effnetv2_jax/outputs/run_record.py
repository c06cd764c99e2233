"""What a start of a run was made with, so that it can be repeated, or compared with another."""

import os
import platform
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.models.registry import family_of
from effnetv2_jax.system.cores import cores
from effnetv2_jax.system.machine import cpu_name, versions

PACKAGES = (
    "effnetv2_jax",
    "jax",
    "jaxlib",
    "libtpu",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tensorflow-datasets",
    "simplejpeg",
    "numpy",
    # All of these are imported as cv2.
    "opencv-python-headless",
    "opencv-python",
    "opencv-contrib-python-headless",
    "opencv-contrib-python",
    "ml-collections",
)
ENVIRONMENT = (
    "XLA_FLAGS",
    "LIBTPU_INIT_ARGS",
    "NVIDIA_TF32_OVERRIDE",
    "JAX_DEFAULT_DTYPE_BITS",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "JAX_DEFAULT_PRNG_IMPL",
    "JAX_DISABLE_MOST_OPTIMIZATIONS",
    "JAX_ENABLE_X64",
    "JAX_EXEC_TIME_OPTIMIZATION_EFFORT",
    "JAX_NUMPY_DTYPE_PROMOTION",
    "JAX_OPTIMIZATION_LEVEL",
    "JAX_RANDOM_SEED_OFFSET",
    "JAX_THREEFRY_PARTITIONABLE",
)
"""Variables that change numbers."""

_SECONDS = 1.0
"""That git may take, should the file system hang; it takes a hundredth."""


def run_record(
    mesh: Mesh, *, model: ModelConfig, train_data: str, eval_data: str
) -> dict[str, Any]:
    """What a start of a run was made with, as JSON values.

    Args:
      mesh: of all devices of the run.
      model: whose family is recorded, and the module it is from: to be told, and never imported by
        what reads it.
      train_data: `Source.fingerprint` of the training data.
      eval_data: likewise of the evaluation data.
    """
    devices = mesh.devices.flat
    source = source_revision(Path(__file__).parents[1])
    family = family_of(model.name)
    return {
        "revision": source.commit,
        "uncommitted_changes": source.changed,
        "python": platform.python_version(),
        "packages": versions(PACKAGES),
        "platform": devices[0].platform,
        "runtime": devices[0].client.platform_version.strip(),
        "devices": dict(Counter(device.device_kind for device in devices)),
        "processes": jax.process_count(),
        "cpu": cpu_name(),
        "cores": cores(),
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "model": {"family": family.name, "module": family.config.__module__},
        "data": {"train": train_data, "eval": eval_data},
    }


class Revision(NamedTuple):
    """Which source code a directory holds; None where git does not know."""

    commit: str | None
    changed: bool | None
    """Whether something in the directory differs from the commit, or is not in it."""


def source_revision(package: Path) -> Revision:
    """The git revision of a package's directory.

    Nothing is known of a package that is not committed, such as one that is installed in an
    environment within somebody's repository. Takes about 10 ms.
    """
    try:
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        status = _git(package, "status", "--porcelain=v2", "--branch", "--", ".").splitlines()
    except (OSError, subprocess.SubprocessError):
        return Revision(None, None)
    heads = [line.split()[-1] for line in status if line.startswith("# branch.oid ")]
    if not heads or heads == ["(initial)"]:
        return Revision(None, None)
    return Revision(heads[0], any(not line.startswith("#") for line in status))


def _git(folder: Path, *arguments: str) -> str:
    # In a git hook these variables name another repository.
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    # Neither locks nor background processes are left behind, and whose files they are is no matter.
    options = ("--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "safe.directory=*")
    return subprocess.run(
        ("git", *options, "-C", folder, *arguments),
        env=environment,
        capture_output=True,
        check=True,
        text=True,
        errors="replace",
        timeout=_SECONDS,
    ).stdout
