"""Named arrays from files that other libraries wrote; nothing in a file can run code."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from effnetv2_jax.weights.errors import WeightsError

Arrays = Mapping[str, np.ndarray]

_NESTS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Where training programs put the weights in a checkpoint; averages first."""


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


def read_torch(path: Path) -> Arrays:
    """The tensors of a `.pth` file that holds a state dict, alone or within a checkpoint.

    Raises:
      WeightsError: PyTorch is missing; there is no such file; it holds anything but tensors and
        plain containers, which is not unpickled; or it has no state dict.
    """
    try:
        import torch
    except ImportError as error:
        raise WeightsError(
            f"{path} is PyTorch's; reading it takes PyTorch (pip install torch), or convert it to "
            ".safetensors"
        ) from error
    _need(path)
    with path.open("rb") as file:
        if file.read(1) not in (b"P", b"\x80"):  # A zip archive or a pickle.
            raise WeightsError(f"{path} is no PyTorch file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors and was not unpickled, because that could run code; "
            f"save its state_dict() alone ({_first_line(error)})"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is no whole PyTorch file: {_first_line(error)}") from error
    for name in _NESTS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not any(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise WeightsError(f"{path} has no state dict: it holds {type(content).__name__}")
    return {
        str(name).removeprefix("module."): to_numpy(value)
        for name, value in content.items()
        if isinstance(value, torch.Tensor)
    }


def write_safetensors(path: Path, arrays: Arrays) -> None:
    """Writes arrays by name, in the layout of PyTorch's own files."""
    from safetensors.numpy import save_file

    path.touch()
    permissions = path.stat().st_mode  # By the umask; the library's own are the user's alone.
    save_file(dict(arrays), path, metadata={"format": "pt"})
    path.chmod(permissions)


def to_numpy(tensor: Any) -> np.ndarray:
    """A PyTorch tensor on any device, or what NumPy takes anyway, as an array."""
    if not hasattr(tensor, "detach"):
        return np.asarray(tensor)
    tensor = tensor.detach().cpu()
    # NumPy has no bfloat16; every bfloat16 is a float32.
    return (tensor.float() if tensor.dtype.itemsize == 2 else tensor).numpy()


def _need(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"there is no file {os.fspath(path)}")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
