"""Where the records of TFRecord files lie: found once, and kept in the user's cache directory.

A file is a row of records: the length of the data in 8 bytes, its checksum in 4, the data, their
checksum in 4, all little-endian (https://www.tensorflow.org/tutorials/load_data/tfrecord). Of local
files only the lengths are read; remote ones are read as a whole, once, since many small requests
would take longer.
"""

import array
import bisect
import hashlib
import logging
import pathlib
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from typing import BinaryIO, NamedTuple

import fsspec
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from effnetv2_jax.data.record import DataError
from effnetv2_jax.system.cache import cache_directory
from effnetv2_jax.system.checksums import masked_crc32c

HEADER = struct.Struct("<QI")
"""What stands before a record's data: their length, and its checksum."""
FOOTER = struct.Struct("<I")
"""What stands behind them: their checksum."""

_OVERHEAD = HEADER.size + FOOTER.size
_HEADERS = np.dtype([("length", "<u8"), ("checksum", "<u4")])
_READ_AHEAD = 2**24  # Bytes of a remote file.
_SEARCHED = 2**20  # Bytes at a time.
_THREADS = 16

_log = logging.getLogger(__name__)


class File(NamedTuple):
    """A TFRecord file as it is listed."""

    name: str
    """As messages have it."""
    path: str
    """As its file system has it."""
    size: int
    """In bytes."""
    modified: str
    """When, in the notation of its file system."""


class Place(NamedTuple):
    """Where a record lies, its header and footer included."""

    file: int
    """Which of the files."""
    start: int
    """Its first byte in that file."""
    stop: int
    """Where the next record begins."""
    damaged: bool
    """Whether its length is not known for certain, so that it cannot be read."""


class Index:
    """The records of several files, in order; what lies between sound ones is a damaged one."""

    def __init__(
        self, files: Sequence[File], ends: NDArray[np.int64], damaged: Iterable[int]
    ) -> None:
        """Lays the files end to end.

        Args:
          files: what is indexed.
          ends: [N], where each record ends, in bytes from the start of the first file.
          damaged: numbers of the records whose length is not known for certain.
        """
        self.ends = ends
        self.damaged = frozenset(damaged)
        self._file_ends = np.cumsum([file.size for file in files]).tolist()

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: int) -> Place:
        start = int(self.ends[number - 1]) if number else 0
        file = bisect.bisect_right(self._file_ends, start)
        first = self._file_ends[file - 1] if file else 0
        stop = int(self.ends[number])
        return Place(file, start - first, stop - first, number in self.damaged)


def load_index(system: fsspec.AbstractFileSystem, files: Sequence[File]) -> Index:
    """Indexes files, or takes the index from the cache if none of them has changed since.

    The cache is `tfrecord` in the package's cache directory. Several processes may use it at once.

    Raises:
      DataError: a file cannot be read. Damaged records are no error, but part of the index.
    """
    name = _digest(system.protocol, [file.path for file in files])
    path = cache_directory() / "tfrecord" / f"{name}.npz"
    state = _digest([(file.size, file.modified) for file in files])
    index = _load(path, files, state)
    if index is None:
        index = _make(system, files)
        _save(path, index, state)
    return index


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _load(path: pathlib.Path, files: Sequence[File], state: str) -> Index | None:
    """The cached index, if there is one of this state of the files."""
    try:
        with open(path, "rb") as stream, np.load(stream) as saved:
            if saved["state"] != state:
                return None
            return Index(files, saved["ends"], saved["damaged"].tolist())
    except FileNotFoundError:
        return None
    except Exception as error:
        # A damaged archive fails in as many ways as zipfile and NumPy have parts.
        _log.warning("%s is damaged (%s); indexing anew", path, error)
        return None


def _save(path: pathlib.Path, index: Index, state: str) -> None:
    """Puts the index into the cache as a whole, so that no other process reads half of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            new = pathlib.Path(folder) / path.name
            np.savez(new, state=state, ends=index.ends, damaged=sorted(index.damaged))
            new.replace(path)
    except OSError as error:
        _log.warning("the index cannot be kept, so every run has to make it: %s", error)


def _make(system: fsspec.AbstractFileSystem, files: Sequence[File]) -> Index:
    """Walks through the files, several at a time."""

    def walk(file: File) -> tuple[NDArray[np.int64], list[int]]:
        ends, damaged = array.array("q"), []
        try:
            with system.open(
                file.path, "rb", block_size=_READ_AHEAD, cache_type="readahead"
            ) as stream:
                for end, sound in _walk(stream, file.size):
                    if not sound:
                        damaged.append(len(ends))
                    ends.append(end)
        except Exception as error:
            # Each kind of file system has errors of its own.
            raise DataError(f"{file.name} cannot be read: {error}") from error
        return np.array(ends, np.int64), damaged

    all_ends: list[NDArray[np.int64]] = []
    all_damaged: list[int] = []
    size = count = 0
    with ThreadPool(min(_THREADS, len(files))) as pool:
        walks = pool.imap(walk, files)
        progress = tqdm(walks, "indexing", len(files), unit="files", delay=2, disable=None)
        for (ends, damaged), file in zip(progress, files):
            all_ends.append(size + ends)
            all_damaged += [count + number for number in damaged]
            size += file.size
            count += len(ends)
    return Index(files, np.concatenate(all_ends), all_damaged)


def _walk(stream: BinaryIO, size: int) -> Iterator[tuple[int, bool]]:
    """Yields where each record ends, and whether it is sound as far as its header shows."""
    position = 0
    while position < size:
        stream.seek(position)
        length = _length(stream.read(HEADER.size))
        if length is not None and position + length + _OVERHEAD <= size:
            position += length + _OVERHEAD
            yield position, True
        else:
            position = _next_header(stream, position + 1, size)
            yield position, False


def _length(header: bytes) -> int | None:
    """The length that a header states; None if it is damaged or incomplete."""
    if len(header) < HEADER.size:
        return None
    length, check = HEADER.unpack(header)
    return length if masked_crc32c(header[:8]) == check else None


def _next_header(stream: BinaryIO, position: int, size: int) -> int:
    """The first byte from `position` on where a sound header of a record within the file begins.

    Fewer than one in 2**32 places in random bytes look like one, and then the data's checksum
    is wrong.
    """
    while position + _OVERHEAD <= size:
        stream.seek(position)
        block = stream.read(_SEARCHED)
        found = _find_header(block, size - position)
        if found is not None:
            return position + found
        position += max(1, len(block) - HEADER.size + 1)  # One may lie across two blocks.
    return size


def _find_header(block: bytes, room: int) -> int | None:
    """The first sound header in a block from which on the file has `room` bytes."""
    found = []
    for shift in range(min(HEADER.size, len(block) - HEADER.size + 1)):
        count = (len(block) - shift) // HEADER.size
        headers = np.frombuffer(block, _HEADERS, count, shift)
        fitting = np.flatnonzero(headers["length"] < room)
        # Equal lengths are checked once: there may be a disk's block full of zeros.
        lengths, which = np.unique(headers["length"][fitting], return_inverse=True)
        checks = np.array([masked_crc32c(length.tobytes()) for length in lengths], np.uint32)
        for number in fitting[headers["checksum"][fitting] == checks[which]].tolist():
            position = shift + number * HEADER.size
            if position + int(headers["length"][number]) + _OVERHEAD <= room:
                found.append(position)
                break
    return min(found, default=None)
