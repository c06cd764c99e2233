"""Finds the files that a list names, by listing each folder once."""

import os
import pathlib
import unicodedata
from typing import NamedTuple

from effnetv2_jax.data.pictures.formats import ENDINGS, ending_of


class Found(NamedTuple):
    """A file that a list names."""

    path: str
    """Where it is, or where it should be: absolute if the list has it so, else relative."""
    exists: bool
    as_written: bool
    """Whether it is called as the list writes it."""


class ListedFiles:
    """Looks names up in folders; what is not there as written may be there in another spelling.

    Of a name that is not there, one counts that differs in case or in how accents are composed, has
    backslashes for slashes, or lacks its ending, where there is exactly one.
    """

    def __init__(self, root: pathlib.Path, folder: str = "") -> None:
        """Takes what relative names start from.

        Args:
          root: what relative paths are relative to.
          folder: the folder in it, or an absolute one, that holds the files.
        """
        self._root = str(root)
        self._folder = folder
        self._names: dict[str, frozenset[str]] = {}
        self._spellings: dict[str, dict[str, set[str]]] = {}

    def find(self, name: str) -> Found:
        """The file of a name, absolute or relative."""
        path = os.path.normpath(os.path.join(self._folder, name))
        folder, last = os.path.split(path)
        if last in self._list(folder):
            return Found(path, True, True)
        if "\\" in name:
            return self.find(name.replace("\\", "/"))._replace(as_written=False)
        known = self._spelt(folder).get(_spelling(last), set())
        if len(known) == 1:
            return Found(os.path.join(folder, *known), True, False)
        return Found(path, False, False)

    def pictures(self) -> list[str]:
        """The names of the pictures directly in the folder, in alphabetical order."""
        return sorted(name for name in self._list(self._folder) if ending_of(name) in ENDINGS)

    def _list(self, folder: str) -> frozenset[str]:
        if folder not in self._names:
            try:
                with os.scandir(os.path.join(self._root, folder)) as entries:
                    self._names[folder] = frozenset(entry.name for entry in entries)
            except OSError:
                self._names[folder] = frozenset()
        return self._names[folder]

    def _spelt(self, folder: str) -> dict[str, set[str]]:
        """What is in a folder, by spelling: each name with its ending, pictures also without."""
        if folder not in self._spellings:
            by_spelling: dict[str, set[str]] = {}
            for name in self._list(folder):
                by_spelling.setdefault(_spelling(name), set()).add(name)
                stem, ending = os.path.splitext(name)
                if ending.lower() in ENDINGS:
                    by_spelling.setdefault(_spelling(stem), set()).add(name)
            self._spellings[folder] = by_spelling
        return self._spellings[folder]


def _spelling(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
