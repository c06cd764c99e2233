"""Data sets of Hugging Face: saved by `save_to_disk`, or as Parquet files.

Arrow files hold every picture as it is, so that a list of where each begins is all that random
access needs. Parquet files compress many together: what is read of them is copied to Arrow files in
the cache directory once.
"""

import hashlib
import json
import logging
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data.record import DataError
from effnetv2_jax.data.sources.label_names import Entry
from effnetv2_jax.data.sources.placed import Place, PlacedSource
from effnetv2_jax.data.sources.split_files import SplitFile, files_by_split
from effnetv2_jax.system.cache import cache_directory
from effnetv2_jax.system.text import some

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise DataError(
        "data.source=huggingface reads Arrow and Parquet files with pyarrow, which is missing: "
        'pip install -e ".[huggingface]"'
    ) from error

_NAMED = 5
"""Rows that a message names."""
_PICTURES = ("image", "img", "picture", "jpg", "png")
_LABELS = ("label", "labels")
_ROWS = 64
"""Of a Parquet file that are copied at a time."""

_log = logging.getLogger(__name__)


class _Columns(NamedTuple):
    """What is read of a set."""

    picture: str
    label: str
    names: tuple[str, ...] | None
    """Of the classes, where labels are their numbers."""


class ArrowSet:
    """The examples of a data set, listed once."""

    def __init__(self, data: DataConfig) -> None:
        """Reads all labels, and where the pictures are.

        Raises:
          DataError: a file is missing or damaged, or it is not clear which columns are meant.
        """
        self._data = data
        self.root = pathlib.Path(data.path)
        self.entries: list[Entry] = []
        self.places: list[Place] = []
        self.class_names: tuple[str, ...] | None = None
        """Where the set names them, in their order."""
        files = _find(self.root, data.files)
        columns: set[_Columns] = set()
        for file in files:
            try:
                columns.add(self._read(file))
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{file.path} cannot be read: {error}") from error
        if len(columns) > 1:
            raise DataError(f"{self.root}: its files have different columns or classes")
        (found,) = columns
        self.class_names = found.names
        self.notes = [
            f"{len(files):,} files; pictures in {found.picture}; labels in {found.label}"
            + ("" if found.names is None else ", whose classes the set names")
        ]

    def source(self, split: str, class_names: Sequence[str] | None) -> PlacedSource:
        """Takes a split; see `text_labels.take_split`."""
        parts = str(self.root), self.entries, self.places
        known = class_names or self.class_names
        return PlacedSource(*parts, split, self._data, known, self.notes)

    def _read(self, file: SplitFile) -> _Columns:
        path = file.path
        columns = _columns(path, _schema(path), self._data)
        if path.suffix == ".parquet":
            path = _unpacked(path, columns)
        memory = pa.memory_map(str(path))
        base = memory.read_buffer(memory.size()).address
        memory.seek(0)
        table = pa.ipc.open_stream(memory).read_all()
        start = len(self.entries)
        for name, place in _places(table.column(columns.picture), path, base, memory.size()):
            row = len(self.entries) - start
            if place is None and not name:
                raise DataError(
                    f"{file.path}: row {row}, column {columns.picture!r}: it has no picture"
                )
            # Without its bytes a picture is in a file of its own.
            place = place or Place(str(file.path.parent / str(name)), 0, -1)
            title = f"{file.name}:{row}" + (f":{name}" if name else "")
            self.places.append(place)
            self.entries.append(Entry(f"{file.name}, row {row}", file.part, title, ()))
        wrong: list[str] = []
        for row, stored in enumerate(table.column(columns.label).to_pylist()):
            entry = self.entries[start + row]
            labels, fault = _labels(stored, columns, self._data)
            if fault:
                wrong.append(f"row {row}, column {columns.label!r}: {fault}")
            self.entries[start + row] = entry._replace(labels=labels)
        if wrong:
            raise DataError(f"{file.path}: {some(wrong, _NAMED)}")
        return columns


def _find(root: pathlib.Path, pattern: str) -> list[SplitFile]:
    """The files of a saved set or dictionary of sets, or else Parquet files."""
    if (root / "dataset_dict.json").is_file():
        splits = json.loads((root / "dataset_dict.json").read_text())["splits"]
        return [file for split in splits for file in _saved(root / split, root, split)]
    if (root / "state.json").is_file():
        return _saved(root, root, "")
    return files_by_split(root, ".parquet", pattern)


def _saved(folder: pathlib.Path, root: pathlib.Path, split: str) -> list[SplitFile]:
    try:
        state = json.loads((folder / "state.json").read_text())
        names = [file["filename"] for file in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} is no set that save_to_disk wrote: {error!r}") from error
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise DataError(
            f"{folder}: {len(missing)} of {len(names)} files are missing: {some(missing, _NAMED)}"
        )
    return [
        SplitFile(folder / name, (folder / name).relative_to(root).as_posix(), split)
        for name in names
    ]


def _schema(path: pathlib.Path) -> Any:
    if path.suffix == ".parquet":
        return pq.read_schema(path)
    with pa.memory_map(str(path)) as memory:
        return pa.ipc.open_stream(memory).schema


def _columns(path: pathlib.Path, schema: Any, data: DataConfig) -> _Columns:
    """The columns that the config names, or those whose kind or name says what they are."""
    metadata = (schema.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(metadata).get("info", {}).get("features", {})
    if (path.parent / "dataset_info.json").is_file() and not features:
        features = json.loads((path.parent / "dataset_info.json").read_text())["features"]

    def kinds(name: str) -> list[str]:
        """The kind of a feature, and of what is in it if it is a list."""
        feature = features.get(name)
        if not isinstance(feature, dict):
            return []
        inner = feature.get("feature")
        return [str(each.get("_type")) for each in (feature, inner) if isinstance(each, dict)]

    def choose(field: str, stated: str, wanted: str, usual: Sequence[str]) -> str:
        among = 1 if wanted == "Image" else 2  # An example has a single picture.
        found = [name for name in schema.names if wanted in kinds(name)[:among]]
        found = found or [name for name in schema.names if name in usual]
        found = [stated] if stated else found
        if len(found) != 1 or found[0] not in schema.names:
            raise DataError(
                f"{path}: it is not clear which column is meant; its columns are "
                f"{some(schema.names, 12)}. Set data.{field} to one of them"
            )
        return found[0]

    picture = choose("picture_key", data.picture_key, "Image", _PICTURES)
    label = choose("label_key", data.label_key, "ClassLabel", _LABELS)
    names = None
    if "ClassLabel" in kinds(label):
        feature = features[label]
        names = tuple(feature.get("feature", feature)["names"])
    return _Columns(picture, label, names)


def _labels(stored: Any, columns: _Columns, data: DataConfig) -> tuple[tuple[str, ...], str]:
    """The labels of a row as text, and what is wrong with them."""
    several = stored if isinstance(stored, list) else [] if stored is None else [stored]
    if not several and data.max_labels == 1:
        return (), "it has no label"
    if len(several) > data.max_labels:
        return (), f"it has {len(several)} labels, more than data.max_labels={data.max_labels}"
    found = []
    for label in several:
        if columns.names is None:
            found.append(str(label))
        elif isinstance(label, int) and 0 <= label < len(columns.names):
            found.append(columns.names[label])
        else:
            return (), f"{label} is none of the {len(columns.names)} classes"
    return tuple(dict.fromkeys(found)), ""


def _places(
    column: Any, path: pathlib.Path, base: int, size: int
) -> Iterator[tuple[str | None, Place | None]]:
    """The name of each picture, and where its bytes are in the file; None where they are not.

    Args:
      column: of the pictures, its memory mapped from the file.
      base: where in memory the file begins.
      size: of the file, in bytes.
    """
    for chunk in column.chunks:
        names: list[str | None] = [None] * len(chunk)
        encoded = chunk
        if pa.types.is_struct(chunk.type):
            encoded = chunk.field("bytes")
            if chunk.type.get_field_index("path") >= 0:
                names = chunk.field("path").to_pylist()
        if not pa.types.is_binary(encoded.type):
            encoded = encoded.cast(pa.large_binary())
        _, offsets, content = encoded.buffers()
        ends = memoryview(offsets).cast("i" if pa.types.is_binary(encoded.type) else "q")
        begin = 0 if content is None else content.address - base
        if content is not None and not 0 <= begin <= size - content.size:
            raise DataError(
                f"{path} is compressed, which leaves no random access; save the set anew with "
                "save_to_disk, or as Parquet"
            )
        for row in range(len(chunk)):
            first, last = ends[encoded.offset + row], ends[encoded.offset + row + 1]
            there = encoded[row].is_valid and last > first
            yield names[row], Place(str(path), begin + first, last - first) if there else None


def _unpacked(path: pathlib.Path, columns: _Columns) -> pathlib.Path:
    """An Arrow file in the cache with what is read of a Parquet file; made where it is missing."""
    status = path.stat()
    state = repr((str(path.resolve()), status.st_size, status.st_mtime_ns, columns[:2]))
    name = hashlib.sha256(state.encode()).hexdigest()[:32]
    made = cache_directory() / "parquet" / f"{name}.arrow"
    if made.exists():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    _log.warning("copying %s (%.1f GB) to %s", path, status.st_size / 1e9, made)
    wanted = [columns.picture, columns.label]
    with tempfile.TemporaryDirectory(dir=made.parent) as folder:
        new = os.path.join(folder, made.name)
        with pq.ParquetFile(path) as file, pa.OSFile(new, "wb") as sink:
            schema = pa.schema([file.schema_arrow.field(name) for name in wanted])
            with pa.ipc.new_stream(sink, schema) as writer:
                for batch in file.iter_batches(batch_size=_ROWS, columns=wanted):
                    writer.write_batch(batch.select(wanted).cast(schema))
        os.replace(new, made)
    return made
