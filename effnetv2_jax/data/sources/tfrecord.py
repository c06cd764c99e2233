"""Existing TFRecord files, read where they lie, in any order and without TensorFlow."""

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

from fsspec.implementations.local import LocalFileSystem
from google.protobuf.message import DecodeError as MessageError

# As in `tfds`: reads examples without TensorFlow.
from tensorflow_datasets.proto import tf_example_pb2

from effnetv2_jax.data.record import DataError, DecodeError, Record
from effnetv2_jax.data.sources.splits import parse_split
from effnetv2_jax.data.sources.tfrecord_files import (
    find_files,
    list_directory,
    open_directory,
    read_class_names,
)
from effnetv2_jax.data.sources.tfrecord_index import FOOTER, HEADER, load_index
from effnetv2_jax.system.checksums import masked_crc32c

PICTURES = ("image/encoded", "image")
"""Where an example may have its picture; the first that it has counts."""
LABELS = ("image/class/label", "label", "labels")
"""Where it may have its labels, likewise."""
NAMES = ("image/filename", "file_name", "id")
"""Where it may have a name for messages, likewise."""


class TfrecordSource:
    """One split of a set of TFRecord files; reads encoded pictures, decodes none.

    A record is a tf.train.Example with a picture under one of `PICTURES` and labels under one of
    `LABELS`, as ImageNet's and TFDS's are. Checksums are compared at every reading. A damaged
    record is an example that cannot be read; its neighbours are not affected.
    """

    exif = False  # as TensorFlow's decoder, with which published results were made

    def __init__(
        self,
        path: str,
        split: str,
        *,
        num_classes: int,
        first_label: int = 0,
        max_labels: int = 1,
        files: str = "",
        picture_key: str = "",
        label_key: str = "",
    ) -> None:
        """Finds the files (see `choose_files`), and the records in them.

        Args:
          path: the directory of the files, local or any that fsspec knows, such as `gs://`. If
            none of them is the split's, all TFRecord files in a folder of that name are.
          split: a name or a slice, such as `train` or `train[25023:]`. Examples stand in the order
            of the files.
          num_classes: how many classes there are. Their names are the lines of a file
            `*labels.txt` in `path` that has as many, as TFDS writes it, or else "0", "1", ...
          first_label: the number of the first class. Labels may also be written as a 0 or 1 for
            every class.
          max_labels: labels that an example may have.
          files: the names of the files, see `matching`; empty takes those that are usual.
          picture_key, label_key: where an example has its picture and its label; empty: one of
            `PICTURES` and `LABELS`. A label may be the name of a class.

        Raises:
          DataError: no such directory or split, files are missing or cannot be read, they hold no
            records, or the slice is empty.
        """
        wanted = parse_split(split)
        system, root = open_directory(path)
        entries = list_directory(system, root)
        self._read = _read_local if isinstance(system, LocalFileSystem) else system.cat_file
        self._files = find_files(system, path.rstrip("/"), entries, wanted.name, files)
        self._index = load_index(system, self._files)
        if len(self._index) == len(self._index.damaged):
            raise DataError(
                f"there are no records in {self._files[0].name} and the other files of split "
                f"{wanted.name!r}; compressed files have to be unpacked"
            )
        self._numbers = wanted.indices(len(self._index))
        self.available = len(self._index)
        """Records of the whole split, of which this may be a slice."""
        self._pictures = (picture_key,) if picture_key else PICTURES
        self._label_keys = (label_key,) if label_key else LABELS
        self._first_label = first_label
        self._max_labels = max_labels
        self.name = f"{path} {split}"
        self.class_names = read_class_names(system, entries, num_classes)
        sizes = [(file.name.rpartition("/")[2], file.size) for file in self._files]
        self._places = {name.encode(): place for place, name in enumerate(self.class_names)}
        told: tuple[object, ...] = (sizes, self._numbers, first_label, self.class_names)
        # As it was before there were keys, where none are stated.
        told += (picture_key, label_key) if picture_key or label_key else ()
        self.fingerprint = hashlib.sha256(repr(told).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Record:
        place = self._index[self._numbers[index]]
        file = self._files[place.file]
        where = f"{file.name} at byte {place.start}"
        if place.damaged:
            raise DecodeError(f"{where}: its length is damaged, or the file ends within it")
        try:
            record = self._read(file.path, place.start, place.stop)
        except Exception as error:
            # Each kind of file system has errors of its own.
            raise DecodeError(f"{where}: {error}") from error
        data = record[HEADER.size : -FOOTER.size]
        if record[:8] != len(data).to_bytes(8, "little"):
            raise DecodeError(f"{where}: its length is damaged")
        if record[-FOOTER.size :] != FOOTER.pack(masked_crc32c(data)):
            raise DecodeError(f"{where}: its data do not have their checksum")
        return self._parse(data, where)

    def _parse(self, data: bytes, where: str) -> Record:
        try:
            fields = tf_example_pb2.Example.FromString(data).features.feature
        except MessageError as error:
            raise DecodeError(f"{where}: it is no tf.train.Example ({error})") from error
        pictures = _values(fields, self._pictures, "bytes_list", where)
        labels = self._labels(fields, where)
        if len(pictures) != 1:
            raise DecodeError(f"{where}: it has {len(pictures)} pictures")
        return Record(where + _name(fields), pictures[0], labels)

    def _labels(self, fields: Any, where: str) -> tuple[int, ...]:
        """An example's labels, counted from 0."""
        keys = self._label_keys
        stored = _values(fields, keys, "int64_list", where, "float_list", "bytes_list")
        classes = len(self.class_names)
        if any(isinstance(label, bytes) for label in stored):
            return self._named(stored, where)
        # No list of labels: a number would stand in it twice. Of two classes it may be one.
        flags = {*stored} <= {0, 1}
        one_hot = flags and len(stored) > 1 and sum(stored) == 1 and self._max_labels == 1
        many_hot = flags and len(stored) == classes > 2 and self._max_labels > 1
        if len(stored) == classes and (one_hot or many_hot):
            return tuple(label for label, flag in enumerate(stored) if flag)
        if any(isinstance(label, float) for label in stored):
            raise DataError(
                f"{where}: its labels are floating-point numbers; they have to be whole ones, or a "
                f"0 or 1 for each of the {classes} classes"
            )
        if one_hot and len(stored) > 2:
            raise DataError(
                f"{where}: its label is written as {len(stored)} times 0 or 1, one for each class "
                f"as it seems, but {classes} classes are stated"
            )
        return tuple(dict.fromkeys(label - self._first_label for label in stored))

    def _named(self, stored: Sequence[bytes], where: str) -> tuple[int, ...]:
        """Labels that are written as text: names of classes, or their numbers."""
        found = []
        for label in stored:
            place = self._places.get(label)
            if place is None and label.isdigit():
                place = int(label) - self._first_label
            if place is None:
                raise DataError(
                    f"{where}: its label is the text {label.decode(errors='replace')!r}, which is "
                    f"none of the {len(self.class_names):,} classes; their names have to stand, "
                    "one a line and in their order, in a file labels.txt beside the TFRecord files"
                )
            found.append(place)
        return tuple(dict.fromkeys(found))


def _read_local(path: str, start: int, stop: int) -> bytes:
    """What `LocalFileSystem.cat_file` does, in half the time."""
    with open(path, "rb", buffering=0) as stream:
        stream.seek(start)
        return stream.read(stop - start)


_Kind = Literal["bytes_list", "int64_list", "float_list"]


def _values(fields: Any, keys: Sequence[str], kind: _Kind, where: str, *other_kinds: _Kind) -> Any:
    """What an example has under the first of these keys that it has, of one of these kinds."""
    key = next((key for key in keys if key in fields), None)
    if key is None:
        raise DataError(
            f"{where} has none of {', '.join(keys)}; it has {', '.join(sorted(fields))}. Set "
            f"data.{'picture' if kind == 'bytes_list' else 'label'}_key to the one that is meant"
        )
    stored = fields[key].WhichOneof("kind") or kind  # An empty list may have no kind.
    if stored not in (kind, *other_kinds):
        raise DataError(f"{where}: its {key!r} is a {stored}, but must be a {kind}")
    return getattr(fields[key], stored).value


def _name(fields: Any) -> str:
    """An example's own name in brackets, if it has one."""
    for key in NAMES:
        for value in fields[key].bytes_list.value:
            return f" ({value.decode(errors='replace')})"
        for value in fields[key].int64_list.value:
            return f" ({value})"
    return ""
