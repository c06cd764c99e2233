"""Named arrays in `.safetensors` files."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from effnetv2_jax.weights.errors import WeightsError

Arrays = Mapping[str, np.ndarray]


def read_safetensors(path: Path) -> Arrays:
    """The arrays of a `.safetensors` file.

    Raises:
      WeightsError: there is no such file, or it is truncated or not one of that format.
    """
    import ml_dtypes  # noqa: F401  # Teaches NumPy what bfloat16 is.
    from safetensors import SafetensorError, safe_open

    _need(path)
    try:
        with safe_open(path, framework="np") as file:
            return {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{path} is no whole safetensors file: {error}") from error


def write_safetensors(path: Path, arrays: Arrays) -> None:
    """Writes arrays by name, in the layout of PyTorch's own files."""
    from safetensors.numpy import save_file

    path.touch()
    permissions = path.stat().st_mode  # By the umask; the library's own are the user's alone.
    save_file(dict(arrays), path, metadata={"format": "pt"})
    path.chmod(permissions)


def _need(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"there is no file {os.fspath(path)}")
