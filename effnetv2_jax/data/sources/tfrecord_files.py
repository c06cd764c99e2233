"""Which files of a directory, local or remote, are a split's TFRecord files."""

import fnmatch
import glob
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import fsspec

from effnetv2_jax.data.record import DataError
from effnetv2_jax.data.sources.tfrecord_index import File

_VALIDATION = ("validation", "val", "valid")
_TFRECORD = re.compile(r"(?!\.)(.*\.tfrecords?(-\d+(-of-\d+)?)?|[^.]*-\d+-of-\d+)", re.IGNORECASE)
_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)")
_MODIFIED = ("mtime", "updated", "LastModified", "last_modified", "created")
"""What file systems call the time of the last change."""

_Entries = Mapping[str, Mapping[str, Any]]
"""As `list_directory` returns them."""


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
            raise DataError(f"{len(missing)} of {int(count)} files are missing: {_some(missing)}")
        return files
    return []


def _some(names: Sequence[str]) -> str:
    """The names, or the first of many."""
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _synonyms(split: str) -> tuple[str, ...]:
    return _VALIDATION if split in _VALIDATION else (split,)


def open_directory(path: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a directory, and its name there."""
    try:
        system, root = fsspec.core.url_to_fs(path)
    except ImportError as error:
        hint = ': pip install -e ".[gcs]"' if path.startswith(("gs://", "gcs://")) else ""
        raise DataError(f"data.path: {path} needs a library ({error}){hint}") from error
    except ValueError as error:
        raise DataError(f"data.path: {path}: {error}") from error
    return system, root


def list_directory(system: fsspec.AbstractFileSystem, folder: str) -> dict[str, Mapping[str, Any]]:
    """What a directory holds, by name, as fsspec describes it."""
    try:
        if not system.isdir(folder):
            raise DataError(f"data.path: there is no directory {folder!r}")
        entries = {}
        for entry in system.ls(folder, detail=True):
            if entry.get("islink") and system.exists(entry["name"]):
                entry = system.info(entry["name"])  # Of the link's target.
            entries[entry["name"].rstrip("/").rpartition("/")[2]] = entry
        return entries
    except DataError:
        raise
    except Exception as error:
        # Each kind of file system has errors of its own.
        raise DataError(f"data.path: {folder} cannot be listed: {error}") from error


def matching(
    names: Iterable[str], pattern: str, split: str, *, of_folder: bool = False
) -> list[str]:
    """The names that match a pattern of the config, sorted.

    Args:
      pattern: as the shell has it, with `{split}` for the split's name.
      split: without a slice.
      of_folder: whether the names are in a folder of the split's own.

    Raises:
      DataError: the pattern does not tell splits apart, and one of them is meant.
    """
    if "{split}" not in pattern and not of_folder and split != "all":
        raise DataError(
            f"data.files is {pattern!r}, the same for every split; put {{split}} where the split's "
            "name stands, or take slices of `all`, such as data.train_split=all[:90%] and "
            "data.eval_split=all[90%:]"
        )
    found = pattern.replace("{split}", glob.escape(split))
    return sorted(name for name in names if fnmatch.fnmatchcase(name, found))


def find_files(
    system: fsspec.AbstractFileSystem, path: str, entries: _Entries, split: str, pattern: str = ""
) -> list[File]:
    """The files of a split in the directory `path`, which holds these entries.

    Args:
      pattern: of their names, see `matching`; empty: see `choose_files`.
    """
    if pattern:
        *folders, pattern = pattern.split("/")
        for folder in (each.replace("{split}", split) for each in folders):
            if folder not in entries:
                raise DataError(f"{path} has no folder {folder!r} (data.files)")
            path, entries = f"{path}/{folder}", list_directory(system, entries[folder]["name"])
        names = matching(entries, pattern, split, of_folder="{split}" in "".join(folders))
        if not names:
            raise DataError(
                f"{path} has no file {pattern.replace('{split}', split)!r} (data.files); it holds "
                f"{_some(sorted(entries)) or 'nothing'}"
            )
        return [_file(path, name, entries[name]) for name in names]
    try:
        names = choose_files(entries, split)
        for folder in [] if names else _synonyms(split):
            if folder in entries and entries[folder]["type"] == "directory":
                path = f"{path}/{folder}"
                entries = list_directory(system, entries[folder]["name"])
                names = _whole_set(filter(_TFRECORD.fullmatch, entries))
                break
    except DataError as error:
        raise DataError(f"{path}, split {split!r}: {error}") from error
    if not names:
        raise DataError(
            f"{path} has no TFRecord files of split {split!r}, such as {split}-00000-of-01024; it "
            f"holds {_some(sorted(entries)) or 'nothing'}. Set data.path and the split's name to "
            "what there is, or data.files to the names of the files"
        )
    return [_file(path, name, entries[name]) for name in names]


def _file(path: str, name: str, entry: Mapping[str, Any]) -> File:
    modified = next((str(entry[key]) for key in _MODIFIED if key in entry), "")
    return File(f"{path}/{name}", entry["name"], entry["size"], modified)


def read_class_names(
    system: fsspec.AbstractFileSystem, entries: _Entries, num_classes: int
) -> tuple[str, ...]:
    """The lines of a file `*labels.txt` among the entries that has as many, or else numbers."""
    for name in sorted(entries):
        if name.endswith("labels.txt"):
            lines = system.cat_file(entries[name]["name"]).decode(errors="replace").splitlines()
            if len(lines) == num_classes:
                return tuple(lines)
    return tuple(map(str, range(num_classes)))
