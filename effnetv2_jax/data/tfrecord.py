"""Existing TFRecord files, read where they lie, in any order and without TensorFlow."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import fsspec
from google.protobuf.message import DecodeError as MessageError

# As in `tfds_source`: reads examples without TensorFlow.
from tensorflow_datasets.proto import tf_example_pb2

from effnetv2_jax.data.record import DataError, DecodeError, Record
from effnetv2_jax.data.splits import parse_split
from effnetv2_jax.data.tfrecord_index import FOOTER, HEADER, File, checksum, load_index

PICTURES = ("image/encoded", "image")
"""Where an example may have its picture; the first that it has counts."""
LABELS = ("image/class/label", "label", "labels")
"""Where it may have its labels, likewise."""
NAMES = ("image/filename", "file_name", "id")
"""Where it may have a name for messages, likewise."""

_VALIDATION = ("validation", "val", "valid")
_TFRECORD = re.compile(r"(?!\.)(.*\.tfrecords?(-\d+(-of-\d+)?)?|[^.]*-\d+-of-\d+)", re.IGNORECASE)
_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)")
_MODIFIED = ("mtime", "updated", "LastModified", "last_modified", "created")
"""What file systems call the time of the last change."""

_Entries = Mapping[str, Mapping[str, Any]]
"""What a directory holds, by name, as fsspec describes it."""


class TfrecordSource:
    """One split of a set of TFRecord files; reads encoded pictures, decodes none.

    A record is a tf.train.Example with a picture under one of `PICTURES` and labels under one of
    `LABELS`, as ImageNet's and TFDS's are. Checksums are compared at every reading. A damaged
    record is an example that cannot be read; its neighbours are not affected.
    """

    exif = False  # as TensorFlow's decoder, with which published results were made

    def __init__(self, path: str, split: str, *, num_classes: int, first_label: int = 0) -> None:
        """Finds the files, and the records in them: see `choose_files` and `load_index`.

        Args:
          path: the directory of the files, local or any that fsspec knows, such as `gs://`. If it
            has a folder with the split's name, the TFRecord files in that are the split.
          split: a name or a slice, such as `train` or `train[25023:]`. Examples stand in the order
            of the files.
          num_classes: how many classes there are. Their names are the lines of a file
            `*labels.txt` in `path` that has as many, as TFDS writes it, or else "0", "1", ...
          first_label: the number of the first class.

        Raises:
          DataError: no such directory or split, files are missing or cannot be read, they hold no
            records, or the slice is empty.
        """
        wanted = parse_split(split)
        self._system, root = _open(path)
        entries = _list(self._system, root)
        self._files = _find(self._system, path.rstrip("/"), entries, wanted.name)
        self._index = load_index(self._system, self._files)
        if len(self._index) == len(self._index.damaged):
            raise DataError(
                f"there are no records in {self._files[0].name} and the other files of split "
                f"{wanted.name!r}; compressed files have to be unpacked"
            )
        self._numbers = wanted.indices(len(self._index))
        self._first_label = first_label
        self.name = f"{path} {split}"
        self.class_names = _class_names(self._system, entries, num_classes)
        sizes = [(file.name.rpartition("/")[2], file.size) for file in self._files]
        self.fingerprint = hashlib.sha256(
            repr((sizes, self._numbers, first_label, self.class_names)).encode()
        ).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Record:
        place = self._index[self._numbers[index]]
        file = self._files[place.file]
        where = f"{file.name} at byte {place.start}"
        if place.damaged:
            raise DecodeError(f"{where}: its length is damaged, or the file ends within it")
        try:
            record = self._system.cat_file(file.path, place.start, place.stop)
        except Exception as error:
            # Each kind of file system has errors of its own.
            raise DecodeError(f"{where}: {error}") from error
        data = record[HEADER.size : -FOOTER.size]
        if record[:8] != len(data).to_bytes(8, "little"):
            raise DecodeError(f"{where}: its length is damaged")
        if record[-FOOTER.size :] != FOOTER.pack(checksum(data)):
            raise DecodeError(f"{where}: its data do not have their checksum")
        return self._parse(data, where)

    def _parse(self, data: bytes, where: str) -> Record:
        try:
            fields = tf_example_pb2.Example.FromString(data).features.feature
        except MessageError as error:
            raise DecodeError(f"{where}: it is no tf.train.Example ({error})") from error
        pictures = _values(fields, PICTURES, "bytes_list", where)
        labels = _values(fields, LABELS, "int64_list", where)
        if len(pictures) != 1:
            raise DecodeError(f"{where}: it has {len(pictures)} pictures")
        labels = dict.fromkeys(label - self._first_label for label in labels)
        return Record(where + _name(fields), pictures[0], tuple(labels))


def choose_files(names: Iterable[str], split: str) -> list[str]:
    """Picks the files of a split, as ImageNet's converters, TFDS and most others name them.

    A TFRecord file's name ends in `.tfrecord` or `.tfrecords`, after which may come `-00000` or
    `-00000-of-01024`; or it ends in `-00000-of-01024` and has no dot. It is the split's if it has
    the split as a word, with no letter next to it: `train-00000-of-01024`, `train_07.tfrecords` and
    `imagenet2012-train.tfrecord-00000-of-01024` belong to `train`. Upper and lower case are the
    same, and so are `validation`, `val` and `valid`.

    Args:
      names: of the files in a directory.
      split: without a slice.

    Returns:
      Those of the split, sorted; empty if there are none.

    Raises:
      DataError: a file `-of-` so many is missing, or they are of several sets.
    """
    word = re.compile(rf"(?<![a-z])({'|'.join(_synonyms(split))})(?![a-z])", re.IGNORECASE)
    return _whole_set(name for name in names if _TFRECORD.fullmatch(name) and word.search(name))


def _whole_set(names: Iterable[str]) -> list[str]:
    """The names, sorted; raises a DataError unless they are all the files of one set."""
    sets: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in sorted(names):
        match = _SHARD.fullmatch(name)
        sets[(match[1], match[3]) if match else ("", "0")].append(name)
    if len(sets) > 1:
        first = " and ".join(files[0] for files in sets.values())
        raise DataError(
            f"{first} are of different sets; keep them in different directories, or name the split "
            "by a longer part of its files' names"
        )
    for (stem, count), files in sets.items():
        digits = len(files[0]) - len(f"{stem}--of-{count}")
        expected = [f"{stem}-{number:0{digits}}-of-{count}" for number in range(int(count))]
        missing = sorted(set(expected) - set(files))
        if missing:
            raise DataError(f"{len(missing)} of {count} files are missing: {_some(missing)}")
        return files
    return []


def _some(names: Sequence[str]) -> str:
    """The names, or the first of many."""
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _synonyms(split: str) -> tuple[str, ...]:
    return _VALIDATION if split in _VALIDATION else (split,)


def _open(path: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a directory, and its name there."""
    try:
        system, root = fsspec.core.url_to_fs(path)
    except ImportError as error:
        hint = ': pip install -e ".[gcs]"' if path.startswith(("gs://", "gcs://")) else ""
        raise DataError(f"data.path: {path} needs a library ({error}){hint}") from error
    except ValueError as error:
        raise DataError(f"data.path: {path}: {error}") from error
    return system, root


def _list(system: fsspec.AbstractFileSystem, folder: str) -> dict[str, Mapping[str, Any]]:
    try:
        if not system.isdir(folder):
            raise DataError(f"data.path: there is no directory {folder!r}")
        entries = {}
        for entry in system.ls(folder, detail=True):
            if entry.get("islink") and system.exists(entry["name"]):
                entry = system.info(entry["name"])  # Of what the link leads to.
            entries[entry["name"].rstrip("/").rpartition("/")[2]] = entry
        return entries
    except DataError:
        raise
    except Exception as error:
        # Each kind of file system has errors of its own.
        raise DataError(f"data.path: {folder} cannot be listed: {error}") from error


def _find(
    system: fsspec.AbstractFileSystem, path: str, entries: _Entries, split: str
) -> list[File]:
    """The files of a split in the directory `path`, which holds these entries."""
    folder = next((name for name in _synonyms(split) if _is_folder(entries.get(name))), None)
    try:
        if folder is None:
            names = choose_files(entries, split)
        else:
            path = f"{path}/{folder}"
            entries = _list(system, entries[folder]["name"])
            names = _whole_set(filter(_TFRECORD.fullmatch, entries))
    except DataError as error:
        raise DataError(f"{path}, split {split!r}: {error}") from error
    if not names:
        raise DataError(
            f"{path} has no TFRecord files of split {split!r}, such as {split}-00000-of-01024; it "
            f"holds {_some(sorted(entries)) or 'nothing'}. Set data.path and the split's name to "
            "what there is"
        )
    return [
        File(
            f"{path}/{name}",
            entries[name]["name"],
            entries[name]["size"],
            next((str(entries[name][key]) for key in _MODIFIED if key in entries[name]), ""),
        )
        for name in names
    ]


def _is_folder(entry: Mapping[str, Any] | None) -> bool:
    return entry is not None and entry["type"] == "directory"


def _class_names(
    system: fsspec.AbstractFileSystem, entries: _Entries, num_classes: int
) -> tuple[str, ...]:
    for name in sorted(entries):
        if name.endswith("labels.txt"):
            lines = system.cat_file(entries[name]["name"]).decode(errors="replace").splitlines()
            if len(lines) == num_classes:
                return tuple(lines)
    return tuple(map(str, range(num_classes)))


def _values(
    fields: Any, keys: Sequence[str], kind: Literal["bytes_list", "int64_list"], where: str
) -> Any:
    """What an example has under the first of these keys that it has."""
    key = next((key for key in keys if key in fields), None)
    if key is None:
        raise DataError(
            f"{where} has none of {', '.join(keys)}; it has {', '.join(sorted(fields))}"
        )
    stored = fields[key].WhichOneof("kind") or kind  # An empty list may have no kind.
    if stored != kind:
        raise DataError(f"{where}: its {key!r} is a {stored}, but must be a {kind}")
    return getattr(fields[key], kind).value


def _name(fields: Any) -> str:
    """An example's own name in brackets, if it has one."""
    for key in NAMES:
        for value in fields[key].bytes_list.value:
            return f" ({value.decode(errors='replace')})"
        for value in fields[key].int64_list.value:
            return f" ({value})"
    return ""
