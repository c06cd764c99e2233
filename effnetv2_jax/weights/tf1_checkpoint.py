"""Reads TensorFlow's name-based checkpoints, as `tf.compat.v1.train.Saver` writes them.

Such a checkpoint is an index, which is a sorted table of protocol buffers in LevelDB's format, and
shards, in which the tensors lie as they are.
"""

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import ml_dtypes
import numpy as np

from effnetv2_jax.system.checksums import masked_crc32c
from effnetv2_jax.weights.errors import WeightsError

T = TypeVar("T")

MAGIC = bytes.fromhex("57fb808b247547db")
"""The last bytes of every index."""
FOOTER = 48
TRAILER = 5
"""Of a block: how it is compressed, and a checksum."""
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
DTYPES: Mapping[int, np.dtype] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    9: np.dtype("<i8"),
    14: np.dtype(ml_dtypes.bfloat16),
    19: np.dtype("<f2"),
}
"""By TensorFlow's number."""

AVERAGE = "/ExponentialMovingAverage"
_NO_WEIGHT = re.compile(r"(^|/)(global_step|beta[12]_power)$|/(RMSProp|Momentum|Adam)(_\d+)?$")


class _Entry(NamedTuple):
    """Where a tensor lies."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    sliced: bool


class _Index(NamedTuple):
    shards: int
    entries: dict[str, _Entry]


class _Malformed(Exception):
    """What is wrong with an index."""


def read_tf1_checkpoint(path: str | os.PathLike[str], *, outermost: str) -> dict[str, np.ndarray]:
    """The weights of a TensorFlow 1 checkpoint, read without TensorFlow.

    Args:
      path: its prefix, its `.index` file or the folder it lies in. Of several in a folder, the file
        `checkpoint` there names one.
      outermost: see `weights_of_checkpoint`.

    Returns:
      Arrays by the checkpoint's own names, as `weights_of_checkpoint` leaves them, in the shapes
      and dtypes that they were saved in.

    Raises:
      WeightsError: there is no such checkpoint, it is damaged or incomplete, or it is of a kind
        that is not read; the message names the file and says what to do.
    """
    index_file = _find_index(Path(path))
    try:
        index = _read_index(index_file.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise WeightsError(
            f"there is no {index_file}; a checkpoint is given by its prefix (such as model.ckpt), "
            "its .index file or its folder"
        ) from error
    except _Malformed as error:
        raise WeightsError(f"{index_file} is not a sound index: {error}") from error
    if OBJECT_GRAPH in index.entries:
        raise WeightsError(
            f"{index_file} is an object-based checkpoint of TensorFlow 2, without names that mean "
            "anything here; save the variables by name with tf.compat.v1.train.Saver"
        )
    try:
        entries = weights_of_checkpoint(index.entries, outermost=outermost)
    except WeightsError as error:
        raise WeightsError(f"{index_file}: {error}") from error

    prefix = str(index_file).removesuffix(".index")
    arrays = {}
    for name, entry in entries.items():
        shard = Path(f"{prefix}.data-{entry.shard:05d}-of-{index.shards:05d}")
        arrays[name] = _read_tensor(name, entry, shard)
    return arrays


def weights_of_checkpoint(arrays: Mapping[str, T], *, outermost: str) -> dict[str, T]:
    """What of a checkpoint is a network's weight, under the name within the network.

    Drops counters of steps and the optimizer's slots, prefers a variable's moving average to the
    variable, and takes the model's name off: `efficientnetv2-s/stem/conv2d/kernel` becomes
    `stem/conv2d/kernel`.

    Args:
      arrays: anything, by the checkpoint's names.
      outermost: regular expression of a network's outermost modules, such as `stem|head`; what
        stands before one of them is the model's name.

    Raises:
      WeightsError: two models have a variable of the same name.
    """
    model = re.compile(rf"^.+?/(?=({outermost})/)")
    kept = {name: array for name, array in arrays.items() if not _NO_WEIGHT.search(name)}
    averages = {name.removesuffix(AVERAGE) for name in kept if name.endswith(AVERAGE)}
    weights: dict[str, T] = {}
    for name, array in kept.items():
        if name in averages:
            continue
        within = model.sub("", name.removesuffix(AVERAGE))
        if within in weights:
            raise WeightsError(f"there are several models with a variable {within}; keep one")
        weights[within] = array
    return weights


def _find_index(path: Path) -> Path:
    if not path.is_dir():
        return path if path.suffix == ".index" else path.with_name(f"{path.name}.index")
    found = sorted(path.glob("*.index"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise WeightsError(f"{path} holds no checkpoint: there is no *.index file in it")
    state = path / "checkpoint"
    text = state.read_text(errors="replace") if state.is_file() else ""
    if newest := re.search(r'^model_checkpoint_path: "(.+)"', text, re.MULTILINE):
        # The path may be absolute, and of another machine.
        chosen = path / f"{Path(newest[1]).name}.index"
        if chosen in found:
            return chosen
    names = ", ".join(file.stem for file in found)
    raise WeightsError(f"{path} holds several checkpoints, name one of them: {names}")


def _read_index(data: bytes) -> _Index:
    if data[-len(MAGIC) :] != MAGIC or len(data) < FOOTER:
        raise _Malformed(
            "it does not end as TensorFlow's do, so it is cut off or something else; get it again"
        )
    handles = _Reader(data[-FOOTER:])
    for _ in range(2):  # Those of a block of metadata, which is always empty.
        handles.varint()
    shards = None
    entries = {}
    for _, handle in _block(data, handles):
        for key, value in _block(data, _Reader(handle)):
            if not key:
                shards = _parse_header(value)
            elif not key.startswith(b"\0"):  # Keys of slices, whose bytes are no text.
                entries[key.decode(errors="replace")] = _parse_entry(value)
    if shards is None:
        raise _Malformed("it lacks the header; get it again")
    return _Index(shards, entries)


def _block(data: bytes, handle: "_Reader") -> Iterator[tuple[bytes, bytes]]:
    """Yields a block's keys and values, given a handle of its offset and size."""
    offset, size = handle.varint(), handle.varint()
    block = data[offset : offset + size + TRAILER]
    if len(block) < size + TRAILER:
        raise _Malformed("it is cut off; get it again")
    if not _sound(block[: size + 1], int.from_bytes(block[size + 1 :], "little")):
        raise _Malformed("it is damaged, as a checksum shows; get it again")
    if block[size]:
        raise _Malformed("it is compressed, which is not read; save it again with TensorFlow")
    # Where keys start that are written out; the last number counts the others.
    restarts = int.from_bytes(block[size - 4 : size], "little") + 1
    reader = _Reader(block[: max(0, size - 4 * restarts)])
    key = b""
    while reader:
        shared, more, length = reader.varint(), reader.varint(), reader.varint()
        if shared > len(key):
            raise _Malformed("its keys are damaged; get it again")
        key = key[:shared] + reader.take(more)
        yield key, reader.take(length)


def _parse_header(message: bytes) -> int:
    """The number of shards, from a `BundleHeaderProto`."""
    fields = dict(_fields(message))
    if _number(fields, 2):
        raise _Malformed("it was saved on a big-endian machine, which is not read")
    return _number(fields, 1)


def _parse_entry(message: bytes) -> _Entry:
    """Of a `BundleEntryProto`, whose shape is a `TensorShapeProto`."""
    fields = dict(_fields(message))
    dimensions = [dict(_fields(value)) for key, value in _fields(fields.get(2, b"")) if key == 2]
    return _Entry(
        dtype=_number(fields, 1),
        shape=tuple(_number(dimension, 1) for dimension in dimensions),
        shard=_number(fields, 3),
        offset=_number(fields, 4),
        size=_number(fields, 5),
        crc=_number(fields, 6),
        sliced=7 in fields,
    )


def _number(fields: Mapping[int, int | bytes], key: int) -> int:
    value = fields.get(key, 0)  # Protocol buffers leave zeros out.
    if not isinstance(value, int):
        raise _Malformed("its entries are damaged; get it again")
    return value


def _fields(message: int | bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields the keys and values of a protocol buffer's fields."""
    if isinstance(message, int):
        raise _Malformed("its entries are damaged; get it again")
    reader = _Reader(message)
    while reader:
        key, kind = divmod(reader.varint(), 8)
        match kind:
            case 0:
                yield key, reader.varint()
            case 1 | 5:
                yield key, int.from_bytes(reader.take(8 if kind == 1 else 4), "little")
            case 2:
                yield key, reader.take(reader.varint())
            case _:
                raise _Malformed("its entries are damaged; get it again")


class _Reader:
    """Takes bytes from the front; true while some are left."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def __bool__(self) -> bool:
        return self.position < len(self.data)

    def take(self, count: int) -> bytes:
        start, self.position = self.position, self.position + count
        if self.position > len(self.data):
            raise _Malformed("its entries are cut off; get it again")
        return self.data[start : self.position]

    def varint(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            (byte,) = self.take(1)
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise _Malformed("its numbers are damaged; get it again")


def _read_tensor(name: str, entry: _Entry, shard: Path) -> np.ndarray:
    if entry.sliced:
        raise WeightsError(
            f"{shard}: {name} is partitioned, which is not read; save it again as one variable"
        )
    dtype = DTYPES.get(entry.dtype)
    if dtype is None:
        raise WeightsError(
            f"{shard}: {name} has TensorFlow's dtype number {entry.dtype}, which is not read; "
            "save it again as float32"
        )
    if math.prod(entry.shape) * dtype.itemsize != entry.size:
        raise WeightsError(
            f"{shard}: {name} has {entry.size} bytes, not those of {dtype} {entry.shape}; "
            "get the index again"
        )
    if not shard.is_file():
        raise WeightsError(f"the checkpoint lacks {shard}, where {name} lies; get it as well")
    if entry.offset + entry.size > shard.stat().st_size:
        raise WeightsError(f"{shard} is cut off before the end of {name}; get it again")
    data = np.fromfile(shard, np.uint8, entry.size, offset=entry.offset)
    if not _sound(data, entry.crc):
        raise WeightsError(f"{shard} is damaged, as the checksum of {name} shows; get it again")
    try:
        return data.view(dtype).reshape(entry.shape)
    except (
        OverflowError,
        ValueError,
    ) as error:  # Too many dimensions, or too long ones beside one of 0.
        raise WeightsError(f"{shard}: {name} has an impossible shape: {error}") from error


def _sound(data: bytes | np.ndarray, masked: int) -> bool:
    """Whether bytes have that checksum, masked as LevelDB does."""
    return masked_crc32c(data) == masked
