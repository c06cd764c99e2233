"""PyTorch's files, of both formats, read without PyTorch; see `inert_pickle`.

A file is a pickle, in which tensors are calls of a few known functions, and the numbers beside it:
in an archive since PyTorch 1.6, one after the other in a plain file before.
"""

import io
import math
import mmap
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from effnetv2_jax.weights import inert_pickle
from effnetv2_jax.weights.errors import WeightsError
from effnetv2_jax.weights.inert_pickle import CodeError, Inert, PickleError

DTYPES = {
    "Float": np.dtype(np.float32),
    "Double": np.dtype(np.float64),
    "Half": np.dtype(np.float16),
    "BFloat16": np.dtype(ml_dtypes.bfloat16),
    "Long": np.dtype(np.int64),
    "Int": np.dtype(np.int32),
    "Short": np.dtype(np.int16),
    "Char": np.dtype(np.int8),
    "Byte": np.dtype(np.uint8),
    "Bool": np.dtype(np.bool_),
    "ComplexFloat": np.dtype(np.complex64),
    "ComplexDouble": np.dtype(np.complex128),
}
"""By the class of a storage: `torch.FloatStorage`."""
_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_LARGEST_RATIO = 100
"""Of an archive's member to its size in the archive; numbers hardly compress."""
_SMALL = 1 << 20
"""Bytes that a member may have whatever its ratio is."""


class _Storage(NamedTuple):
    """Numbers that a tensor is a part of."""

    key: str
    dtype: np.dtype
    numel: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, numbers: np.ndarray) -> np.ndarray:
        """The part of the storage's numbers, in the tensor's shape."""
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides))
        if 0 not in self.shape and (
            not 0 <= self.offset <= last < len(numbers) or math.prod(self.shape) > len(numbers)
        ):
            raise PickleError("a tensor reaches beyond its numbers")
        start = numbers[self.offset :] if 0 not in self.shape else numbers[:0]
        return np.lib.stride_tricks.as_strided(
            start,
            self.shape,
            tuple(stride * numbers.itemsize for stride in self.strides),
            writeable=False,
        )


def read_torch_file(path: Path) -> Any:
    """What `torch.save` wrote: dicts, lists and the like, with NumPy arrays in place of tensors.

    Whatever else a file holds, such as the arguments of a program, is an `Inert`; nothing in a file
    runs.

    Raises:
      WeightsError: there is no such file, it is damaged or none of PyTorch's, or it names functions
        that would run programs.
    """
    if not path.is_file():
        raise WeightsError(f"there is no file {os.fspath(path)}")
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
        return _read_archive(path) if zipped else _read_plain(path)
    except CodeError as error:
        raise WeightsError(
            f"{path} holds {error}, which runs programs where it is loaded; it was not run, and "
            "nothing is taken from such a file: get the weights elsewhere, or as .safetensors"
        ) from None
    except PickleError as error:
        raise WeightsError(f"{path} is no whole PyTorch file: {error}") from error
    except Exception as error:  # Of damaged archives, zipfile raises nearly anything.
        raise WeightsError(f"{path} is no whole PyTorch file: {error!r}"[:300]) from error


def _read_archive(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.partition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise PickleError("the archive has no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if any(name.startswith(f"{folder}code/") for name in names):
            raise PickleError("it is a TorchScript program; save its state_dict() alone")
        order = f"{folder}byteorder"
        big = order in names and _member(archive, order).strip() == b"big"

        def numbers(storage: _Storage) -> np.ndarray:
            content = _member(archive, f"{folder}data/{storage.key}")
            dtype = storage.dtype.newbyteorder(">") if big else storage.dtype
            if len(content) != storage.numel * dtype.itemsize:
                raise PickleError(f"storage {storage.key} has {len(content)} bytes")
            return np.frombuffer(content, dtype)

        return _with_arrays(_load(io.BytesIO(_member(archive, pickles[0]))), numbers)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > max(_SMALL, _LARGEST_RATIO * info.compress_size):
        raise PickleError(f"{name} would unpack to {info.file_size} bytes")
    return archive.read(info)


def _read_plain(path: Path) -> Any:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        if stream[:1] != b"\x80" or _load(stream) != _MAGIC or _load(stream) != _VERSION:
            raise PickleError("it does not begin as PyTorch's do")
        system = _load(stream)
        if not isinstance(system, dict) or not system.get("little_endian"):
            raise PickleError("it was saved on a big-endian machine, which is not read")
        storages: dict[str, _Storage] = {}
        content = _load(stream, storages)
        arrays: dict[str, np.ndarray] = {}
        for key in _load(stream):
            if not isinstance(key, str | int):
                raise PickleError("it lists something that is no storage")
            storage = storages[str(key)]
            count = int.from_bytes(stream.read(8), "little")
            data = stream.read(count * storage.dtype.itemsize)
            if count != storage.numel or len(data) != count * storage.dtype.itemsize:
                raise PickleError(f"storage {key} is cut off")
            arrays[storage.key] = np.frombuffer(data, storage.dtype)
        return _with_arrays(content, lambda storage: arrays[storage.key])


def _load(stream: Any, storages: dict[str, _Storage] | None = None) -> Any:
    def persistent(reference: Any) -> Any:
        if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage":
            raise PickleError("it refers to something that is no storage")
        _, kind, key, _, numel, *view = reference
        sound = isinstance(kind, Inert) and isinstance(key, str | int) and isinstance(numel, int)
        if not sound or (view and view[0] is not None):
            raise PickleError("its storages are of a kind that is not read")
        name = kind.name.removeprefix("torch.").removesuffix("Storage")
        if name not in DTYPES:
            return Inert(kind.name, (key,))  # Such as quantised numbers.
        storage = _Storage(str(key), DTYPES[name], numel)
        if storages is not None:
            storages[storage.key] = storage
        return storage

    return inert_pickle.load(stream, rebuild=_REBUILD, persistent=persistent)


def _tensor(arguments: tuple[Any, ...]) -> Any:
    storage, offset, shape, strides, *_ = arguments
    if not isinstance(storage, _Storage):
        return Inert("torch.Tensor", arguments)
    if not all(isinstance(n, int) and n >= 0 for n in (offset, *shape, *strides)):
        raise PickleError("a tensor's shape is damaged")
    if len(shape) != len(strides):
        raise PickleError("a tensor's shape is damaged")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _of_type(arguments: tuple[Any, ...]) -> Any:
    """A tensor with attributes of its own, which do not matter here."""
    rebuild, _, inner, *_ = arguments
    return _REBUILD.get(getattr(rebuild, "name", ""), lambda inner: Inert("tensor", inner))(inner)


def _dict(arguments: tuple[Any, ...]) -> Any:
    pairs = arguments[-1] if arguments and isinstance(arguments[-1], list) else []
    return {key: value for key, value in pairs if isinstance(key, str | int)}


_REBUILD: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda arguments: arguments[0],
    "torch._utils._rebuild_parameter_with_state": lambda arguments: arguments[0],
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _dict,
}
"""All that is ever made of what a pickle calls."""


def _with_arrays(content: Any, numbers: Callable[[_Storage], np.ndarray]) -> Any:
    """With arrays in place of tensors; what is shared stays so, and nothing is read twice."""
    read: dict[str, np.ndarray] = {}
    done: dict[int, Any] = {}

    def convert(node: Any) -> Any:
        if isinstance(node, _Tensor):
            storage = node.storage
            if storage.key not in read:
                read[storage.key] = numbers(storage)
            array = read[storage.key]
            if array.dtype.newbyteorder("=") != storage.dtype or len(array) != storage.numel:
                raise PickleError(f"storage {storage.key} has more than one dtype")
            return node.view(array)
        if id(node) in done:
            return done[id(node)]
        match node:
            case Mapping():
                converted: dict[Any, Any] = {}
                done[id(node)] = converted
                converted |= {key: convert(value) for key, value in node.items()}
                return converted
            case Inert():
                done[id(node)] = node
                node.state = convert(node.state)
        return node

    return convert(content)
