"""Tar files as WebDataset has them, read at random positions.

The files of an example follow each other in a tar file and differ in their endings alone, which
begin at the first dot: `00123.jpg`, `00123.cls`. A tar file that is not compressed holds each as it
is, so that a list of where they begin is all that random access needs.
"""

import json
import pathlib
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data.pictures.formats import ENDINGS
from effnetv2_jax.data.record import DataError
from effnetv2_jax.data.sources.label_names import Entry
from effnetv2_jax.data.sources.placed import Place, PlacedSource
from effnetv2_jax.data.sources.split_files import SplitFile, files_by_split
from effnetv2_jax.system.text import some

_LABELS = ("cls", "txt", "json")


class _Member(NamedTuple):
    start: int
    length: int


class TarFiles:
    """The examples of several tar files, listed once."""

    def __init__(self, data: DataConfig) -> None:
        """Reads the headers of all files, and the labels.

        Raises:
          DataError: a file cannot be read, or an example lacks its picture or its label.
        """
        self._data = data
        self.root = pathlib.Path(data.path)
        self.entries: list[Entry] = []
        self.places: list[Place] = []
        files = files_by_split(self.root, ".tar", data.files)
        keys: set[tuple[str, str]] = set()
        for file in files:
            for name, members in _examples(file):
                keys.add(self._add(file, name, members))
        pictures, labels = (", ".join(sorted({*each})) for each in zip(*keys))
        self.notes = [f"{len(files):,} tar files; pictures in {pictures}; labels in {labels}"]

    def source(self, split: str, class_names: Sequence[str] | None) -> PlacedSource:
        """Takes a split; see `text_labels.take_split`."""
        parts = str(self.root), self.entries, self.places
        return PlacedSource(*parts, split, self._data, class_names, self.notes)

    def _add(self, file: SplitFile, name: str, members: dict[str, _Member]) -> tuple[str, str]:
        """Lists an example; returns the keys of its picture and label."""
        key = self._data.picture_key
        usual = [each for each in members if f".{each.lower().rpartition('.')[2]}" in ENDINGS]
        if key and key not in members:
            raise DataError(f"{file.path}: {name} has no {key!r}; {_there(members)}")
        if not key and len(usual) != 1:
            what = "several pictures" if usual else "no picture"
            raise DataError(
                f"{file.path}: {name} has {what}; {_there(members)}. Set data.picture_key to the "
                "ending that is meant"
            )
        picture = key or usual[0]
        label_key = self._data.label_key or next((k for k in _LABELS if k in members), "")
        stored, _, field = label_key.partition(":")
        if stored not in members or (stored == "json" and not field):
            raise DataError(
                f"{file.path}: {name} has no label{f' {label_key!r}' if label_key else ''}; "
                f"{_there(members)}. Set data.label_key to its ending, or json:KEY"
            )
        path = f"{file.name}:{name}.{picture}"
        text = _bytes(file.path, members[stored])
        labels = self._labels(text, field, f"{file.path}: {name}.{label_key}")
        self.entries.append(Entry(f"{file.name}:{name}", file.part, path, labels))
        self.places.append(Place(str(file.path), *members[picture]))
        return picture, label_key

    def _labels(self, content: bytes, field: str, where: str) -> tuple[str, ...]:
        """An example's labels, as they are written."""
        data = self._data
        try:
            text: Any = content.decode().strip()
            if field:
                text = json.loads(text)[field]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{where} cannot be read: {error!r}") from error
        if isinstance(text, list):
            labels = [str(each).strip() for each in text]
        elif data.label_separator:
            labels = [each.strip() for each in str(text).split(data.label_separator)]
        else:
            labels = [str(text)]
        labels = list(dict.fromkeys(filter(None, labels)))
        if len(labels) > data.max_labels:
            raise DataError(
                f"{where} has {len(labels)} labels, more than data.max_labels={data.max_labels}"
            )
        if not labels and data.max_labels == 1:
            raise DataError(f"{where} is empty")
        return tuple(labels)


def _examples(file: SplitFile) -> Iterator[tuple[str, dict[str, _Member]]]:
    """The name of each example, and its files by their endings."""
    with open(file.path, "rb") as stream:
        head = stream.read(2)
    if head == b"\x1f\x8b" or file.path.suffix != ".tar":
        raise DataError(
            f"{file.path} is compressed, which leaves no random access; unpack it to a .tar"
        )
    before = ""
    members: dict[str, _Member] = {}
    try:
        with tarfile.open(file.path, "r:") as archive:
            for member in archive:
                folder, _, base = member.name.rpartition("/")
                if not member.isreg() or base.startswith("."):
                    continue
                stem, _, key = base.partition(".")
                name = f"{folder}/{stem}" if folder else stem
                if name != before and members:
                    yield before, members
                    members = {}
                before = name
                members[key] = _Member(member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{file.path} cannot be read as a tar file: {error}") from error
    if members:
        yield before, members


def _bytes(path: pathlib.Path, member: _Member) -> bytes:
    with open(path, "rb") as stream:
        stream.seek(member.start)
        return stream.read(member.length)


def _there(members: dict[str, _Member]) -> str:
    return f"it has {some(members, 8)}"
