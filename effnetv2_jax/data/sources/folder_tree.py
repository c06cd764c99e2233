"""Lists a folder of pictures: every folder in it once, and what is passed over."""

import collections
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from effnetv2_jax.data.pictures.formats import (
    ENDINGS,
    SIGNATURE_BYTES,
    ending_of,
    how_to_read,
    is_signature,
)
from effnetv2_jax.data.record import DataError

HIDDEN = "hidden"
BROKEN_LINKS = "broken links"
REPEATED_LINKS = "links to folders that are listed already"
SPECIAL = "neither files nor folders"
NO_ENDING = "without an ending"
"""Kinds of entries that are passed over, beside endings such as `.txt`."""

_SYSTEM = {
    "__macosx",
    "__pycache__",
    "@eadir",
    "@recycle",
    "@__thumb",
    "@tmp",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "$extend",
    "recycler",
    "recycled",
    "system volume information",
    "lost+found",
    "found.000",
    "lost.dir",
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "icon\r",
}
"""What operating systems and storage servers put into folders, in lower case."""

_PICTURE_ENDINGS = frozenset(ENDINGS)
_LINKED_DEPTH = 2
"""Down to here a link may lead to a folder of the same tree: `train/cat` may be one."""
REPORT_SECONDS = 5.0
"""Between two lines of progress."""


class Folder:
    """A folder's name, its pictures and folders in the order of their names, and what else."""

    __slots__ = ("folders", "name", "passed_over", "pictures", "repeats")

    def __init__(self, name: str, *, repeats: bool = False) -> None:
        self.name = name
        self.pictures: list[str] = []
        """Names of the files directly in it; of links also broken ones, which may come back."""
        self.folders: list[Folder] = []
        self.passed_over: Counter[str] = collections.Counter()
        """How many entries directly in it, by what they are."""
        self.repeats = repeats
        """Whether it is a link to another folder of the same tree."""

    def walk(self, path: str = "") -> Iterator[tuple[str, "Folder"]]:
        """The folder and all in it that do not repeat others, with their paths, top down."""
        waiting = [(path, self)]
        while waiting:
            path, folder = waiting.pop()
            yield path, folder
            waiting += [
                (f"{path}/{inner.name}" if path else inner.name, inner)
                for inner in reversed(folder.folders)
                if not inner.repeats
            ]

    def count(self) -> int:
        """Pictures in it, at any depth."""
        return sum(len(folder.pictures) for _, folder in self.walk())

    def all_passed_over(self) -> Counter[str]:
        """What is passed over in it, at any depth."""
        total: Counter[str] = collections.Counter()
        for _, folder in self.walk():
            total += folder.passed_over
            total[REPEATED_LINKS] += sum(inner.repeats for inner in folder.folders)
        return +total


def list_tree(root: str) -> Folder:
    """Lists a folder. Hidden entries and those of operating systems are passed over and counted.

    Files are pictures by their endings; of those that have none, by how they begin. Links to
    folders are followed, but not around in circles. After some seconds progress is shown on
    standard error.

    Raises:
      DataError: a folder cannot be listed.
    """
    tree = Folder(os.path.basename(root))
    real = os.path.realpath(root)
    waiting = [_Waiting(tree, root, real, (real,))]
    outside: set[str] = set()
    progress = _Progress(root)
    while waiting:
        here = waiting.pop()
        inner = []
        for entry in _scan(here.path, progress):
            if is_hidden(entry.name):
                here.folder.passed_over[HIDDEN] += 1
            elif not _is_folder(entry):
                _add_file(here.folder, entry)
            elif (below := _enter(here, entry, real, outside)) is None:
                here.folder.passed_over[REPEATED_LINKS] += 1
            else:
                here.folder.folders.append(below.folder)
                inner.append(below)
        waiting += reversed(inner)
    return tree


def is_hidden(name: str) -> bool:
    """Whether an entry of this name is hidden, or of an operating system's."""
    return name.startswith((".", "~$")) or name.casefold() in _SYSTEM


def describe(passed_over: Counter[str]) -> str:
    """What was passed over, in words; empty for nothing."""
    parts = []
    for kind, count in passed_over.most_common():
        hint = how_to_read(kind)
        parts.append(f"{count:,} {kind}" + (f" (to read them: {hint})" if hint else ""))
    return ", ".join(parts)


class _Waiting(NamedTuple):
    """A folder that has yet to be listed."""

    folder: Folder
    path: str
    real: str
    """Its path without links."""
    above: tuple[str, ...]
    """The paths without links of it and the folders that led to it."""


def _enter(
    here: _Waiting, entry: os.DirEntry[str], root: str, outside: set[str]
) -> _Waiting | None:
    """A folder to be listed; None for one that links would list again.

    Args:
      root: the tree's path without links.
      outside: folders that are not in the tree itself, and were entered.
    """
    is_link = entry.is_symlink()
    real = os.path.realpath(entry.path) if is_link else f"{here.real}/{entry.name}"
    inside = f"{real}/".startswith(f"{root}/")
    again = (is_link and inside) or real in outside
    if real in here.above or (again and len(here.above) > _LINKED_DEPTH):
        return None
    if not inside:
        outside.add(real)
    folder = Folder(entry.name, repeats=is_link and inside)
    return _Waiting(folder, entry.path, real, (*here.above, real))


def _scan(path: str, progress: "_Progress") -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted(progress.count(entries), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{path} cannot be listed: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link in a circle.
        return False


def _add_file(folder: Folder, entry: os.DirEntry[str]) -> None:
    """Counts a file among the pictures or what is passed over."""
    ending = ending_of(entry.name)
    try:
        regular, broken = entry.is_file(), False
    except OSError:
        regular, broken = False, True
    broken = broken or (not regular and entry.is_symlink() and not os.path.exists(entry.path))
    if ending in _PICTURE_ENDINGS and (regular or broken):
        folder.pictures.append(entry.name)
    elif broken:
        folder.passed_over[BROKEN_LINKS] += 1
    elif not regular:
        folder.passed_over[SPECIAL] += 1
    elif not ending and _begins_as_picture(entry.path):
        folder.pictures.append(entry.name)
    else:
        folder.passed_over[ending or NO_ENDING] += 1


def _begins_as_picture(path: str) -> bool:
    try:
        with open(path, "rb", buffering=0) as stream:
            return is_signature(stream.read(SIGNATURE_BYTES))
    except OSError:
        return False


class _Progress:
    """Says on standard error how far a listing is that takes long."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._entries = self._folders = 0
        self._next = time.monotonic() + REPORT_SECONDS

    def count(self, entries: Iterable[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
        """Passes the entries of a folder on."""
        self._folders += 1
        for entry in entries:
            self._entries += 1
            if time.monotonic() >= self._next:
                self._next = time.monotonic() + REPORT_SECONDS
                print(
                    f"listing {self._root}: {self._entries:,} entries in {self._folders:,} "
                    "folders so far",
                    file=sys.stderr,
                    flush=True,
                )
            yield entry
