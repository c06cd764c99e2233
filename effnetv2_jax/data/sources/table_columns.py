"""Which columns of a table hold the picture, its labels and its split."""

from collections.abc import Sequence
from typing import NamedTuple

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data.pictures.formats import ENDINGS, ending_of
from effnetv2_jax.data.record import DataError
from effnetv2_jax.data.sources.folder_layout import shown
from effnetv2_jax.data.sources.table_file import Row, TableFile
from effnetv2_jax.system.text import some

_PICTURE = (
    "path filepath filename file image imagepath imagename imagefile imagefilename imageid img "
    "imgpath imgname picture photo fname idcode"
)
_LABEL = (
    "label labels class classes classname classlabel category categories target species tag tags "
    "y diagnosis breed"
)
_SPLIT = "split set subset"
ALL_OTHERS = "*"
"""In `data.label_columns`: all columns that are nothing else."""


class Columns(NamedTuple):
    """What the columns of a table are, by their places."""

    names: tuple[str, ...]
    """Of all columns: the header, or "column 1", ..."""
    header: bool
    """Whether the first row is one."""
    picture: int
    labels: tuple[int, ...]
    """One with labels in it, or with `flags` several with a 0 or 1 each."""
    flags: bool
    split: int | None


def find_columns(table: TableFile, data: DataConfig) -> Columns:
    """Takes the columns that the config names, or those that are called as most people do.

    Raises:
      DataError: there are no such columns, or it is not clear which are meant.
    """
    first = table.rows[0]
    header = _has_header(table, data)
    names = first.cells if header else tuple(f"column {n + 1}" for n in range(len(first.cells)))
    search = _Search(table, names, header)
    picture = search.find("picture_key", data.picture_key, _PICTURE, among=0)
    split = search.optional("split_key", data.split_key, _SPLIT)
    if data.label_columns:
        taken = {picture, split}
        labels = (
            tuple(n for n in range(len(names)) if n not in taken)
            if data.label_columns == (ALL_OTHERS,)
            else tuple(search.stated("label_columns", name) for name in data.label_columns)
        )
        return Columns(names, header, picture, labels, True, split)
    label = search.find("label_key", data.label_key, _LABEL, among=1)
    if len({picture, label, split}) < 3:
        raise DataError(
            f"{table.path}: the same column is taken twice, of picture {shown(names[picture])}, "
            f"label {shown(names[label])}; set data.picture_key and data.label_key"
        )
    return Columns(names, header, picture, (label,), False, split)


def _has_header(table: TableFile, data: DataConfig) -> bool:
    """Whether the first row names columns: it names no picture, as those below do."""
    if data.header != "auto":
        return data.header == "yes"
    first, *rest = table.rows
    if any(map(is_picture, first.cells)):
        return False
    below = any(is_picture(cell) for row in rest[:100] for cell in row.cells)
    known = any(_word(cell) in f"{_PICTURE} {_LABEL}".split() for cell in first.cells)
    stated = {data.picture_key, data.label_key, data.split_key, *data.label_columns} - {""}
    return below or known or any(cell in stated for cell in first.cells)


class _Search:
    """Finds columns by name or number."""

    def __init__(self, table: TableFile, names: Sequence[str], header: bool) -> None:
        self._table, self._names, self._header = table, names, header

    def stated(self, field: str, name: str) -> int:
        """The column of that name, or else of that number, from 1."""
        found = [n for n, each in enumerate(self._names) if each == name.strip()]
        if not found and self._header:
            found = [n for n, each in enumerate(self._names) if _word(each) == _word(name)]
        if not found and name.isdigit() and 1 <= int(name) <= len(self._names):
            found = [int(name) - 1]
        if len(found) != 1:
            what = "several columns" if found else "no column"
            raise DataError(f"data.{field}: {self._table.path} has {what} {name!r}; {self._there}")
        return found[0]

    def find(self, field: str, stated: str, usual: str, *, among: int) -> int:
        """The column that is stated, has a usual name, or is at this place of two."""
        if stated:
            return self.stated(field, stated)
        found = self._usual(usual)
        if len(found) == 1:
            return found[0]
        if not found and len(self._names) == 2:
            return among
        what = "several columns may be" if found else "it is not clear which column is"
        raise DataError(
            f"{self._table.path}: {what} the {'label' if among else 'picture'}; {self._there}. Set "
            f"data.{field} to its name, or to its number from 1"
        )

    def optional(self, field: str, stated: str, usual: str) -> int | None:
        """The column that is stated or has a usual name; None for none."""
        if stated:
            return self.stated(field, stated)
        found = self._usual(usual)
        return found[0] if len(found) == 1 else None

    def _usual(self, words: str) -> list[int]:
        if not self._header:
            return []
        return [n for n, name in enumerate(self._names) if _word(name) in words.split()]

    @property
    def _there(self) -> str:
        if self._header:
            return f"its columns are {some(map(shown, self._names), 12)}"
        return f"its first row is {some(map(shown, self._table.rows[0].cells), 12)}"


def check_width(table: TableFile, columns: Columns, rows: Sequence[Row]) -> None:
    """Raises a DataError for rows with more or fewer cells than columns."""
    wrong = [row for row in rows if len(row.cells) != len(columns.names)]
    if wrong:
        named = some((f"row {row.number} has {len(row.cells)}" for row in wrong), 5)
        raise DataError(
            f"{table.path} has {len(columns.names)} columns, but {named}; a cell with "
            f"{table.delimiter!r} in it has to be in quotes"
        )


def _word(name: str) -> str:
    """A column's name without case, blanks and the like."""
    return "".join(filter(str.isalnum, name.casefold()))


def is_picture(cell: str) -> bool:
    """Whether a cell names a picture file, by its ending."""
    return ending_of(cell) in ENDINGS
