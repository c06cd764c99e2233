"""A table of pictures and their labels as it was read: which pictures are in which split."""

import collections
import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from effnetv2_jax.config.experiment import DataConfig
from effnetv2_jax.data.record import DataError
from effnetv2_jax.data.sources.folder_layout import shown
from effnetv2_jax.data.sources.label_lists import known_list
from effnetv2_jax.data.sources.label_names import Entry
from effnetv2_jax.data.sources.listed_files import Found, ListedFiles
from effnetv2_jax.data.sources.split_names import role_of
from effnetv2_jax.data.sources.table_columns import Columns, check_width, find_columns, is_picture
from effnetv2_jax.data.sources.table_file import DELIMITERS, Row, TableFile, read_table
from effnetv2_jax.system.text import some

_NAMED = 5
"""Rows that a message names."""
_TABLES = (".csv", ".tsv", ".txt")
_YES = ("1", "1.0", "true", "yes")
_NO = ("0", "0.0", "false", "no", "")
_SEPARATORS = ",;|"


class PictureTable:
    """The pictures of one CSV file, or of one for each split."""

    def __init__(self, data: DataConfig) -> None:
        """Reads the file in `data.path`, or those in that folder which are called as splits are.

        Raises:
          DataError: a file is missing, or a row makes no sense; the message names rows and columns.
        """
        self.root = pathlib.Path(data.path)
        self.folder = self.root if self.root.is_dir() else self.root.parent
        """What relative paths are relative to."""
        self.notes: list[str] = []
        """What a user should know of how the table is read."""
        self.entries: list[Entry] = []
        self.class_names: tuple[str, ...] | None = None
        """Where columns are classes, their names in that order."""
        for path in self._files():
            part = "" if path == self.root else path.stem
            self.entries += self._read(path, part, data)

    def _files(self) -> list[pathlib.Path]:
        if not self.root.is_dir():
            if not self.root.exists():
                raise DataError(f"data.path: there is no file {str(self.root)!r}")
            return [self.root]
        tables = [path for path in sorted(self.root.iterdir()) if path.suffix.lower() in _TABLES]
        splits = [path for path in tables if role_of(path.stem)]
        if not splits:
            there = some((path.name for path in tables), 8) or f"no {', '.join(_TABLES)} file"
            raise DataError(
                f"data.path: the folder {self.root} holds no table that is called as a split, such "
                f"as train.csv; it holds {there}. Set data.path to the file that is meant"
            )
        return splits

    def _read(self, path: pathlib.Path, part: str, data: DataConfig) -> list[Entry]:
        known = known_list(path, data)
        if known is not None:
            data = dataclasses.replace(data, **known.fields)
            self.notes.append(f"{path.name} is read as {known.title}")
        table = read_table(path, delimiter=data.delimiter, encoding=data.encoding)
        files = ListedFiles(path.parent, data.pictures)
        if len(table.rows[0].cells) == 1:
            rows = _paired(table, files, data)
            columns = Columns(("file", "label"), False, 0, (1,), False, None)
            self.notes.append(
                f"{path.name} has labels alone: they are taken in the order of the names of the "
                f"{len(rows):,} pictures in {path.parent / data.pictures}"
            )
        else:
            columns = find_columns(table, data)
            rows = table.rows[columns.header :]
            check_width(table, columns, rows)
        if not rows:
            raise DataError(f"{path} has no rows but its header")
        if known is not None and known.first_word:
            (label,) = columns.labels
            rows = [_first_word(row, label) for row in rows]
        split = self._split_column(rows, columns, data)
        self.notes.append(_how(table, columns, split))
        if columns.flags:
            self._name_classes(path, tuple(columns.names[n] for n in columns.labels))
        labels = _labels(path, rows, columns, data)
        found = _found(path, rows, columns, files, data, self.notes)
        of = f"{path.name}, " if path != self.root else ""
        entries = [
            Entry(
                f"{of}row {row.number}",
                row.cells[split] if split is not None else part,
                file.path,
                its,
            )
            for row, file, its in zip(rows, found, labels, strict=True)
        ]
        return list(_merged(path, entries, data, self.notes))

    def _name_classes(self, path: pathlib.Path, names: tuple[str, ...]) -> None:
        if self.class_names not in (None, names):
            raise DataError(f"{path} has other columns of classes than the tables before it")
        self.class_names = names

    def _split_column(self, rows: Sequence[Row], columns: Columns, data: DataConfig) -> int | None:
        """The column of splits; one that is only called so has to hold names of splits."""
        split = columns.split
        if split is None or data.split_key:
            return split
        if all(role_of(row.cells[split]) for row in rows):
            return split
        self.notes.append(
            f"the column {shown(columns.names[split])} is not taken for that of the splits, which "
            "data.split_key would name"
        )
        return None


def _paired(table: TableFile, files: ListedFiles, data: DataConfig) -> list[Row]:
    """Labels without names, with the pictures in the order of their names."""
    if is_picture(table.rows[-1].cells[0]):
        raise DataError(
            f"{table.path} names pictures, but no labels: it has a single column. Set "
            "data.delimiter to what stands between the columns; if the pictures lie in a folder "
            "for each class, data.source=folder reads them without a list"
        )
    names = files.pictures()
    if len(names) != len(table.rows):
        raise DataError(
            f"{table.path} has a single column of {len(table.rows):,} rows, and there are "
            f"{len(names):,} pictures in {table.path.parent / data.pictures}: labels alone have to "
            "be as many. Set data.pictures to their folder, or data.delimiter to what stands "
            "between the columns"
        )
    return [Row(row.number, (name, *row.cells)) for name, row in zip(names, table.rows)]


def _first_word(row: Row, column: int) -> Row:
    cells = list(row.cells)
    cells[column] = cells[column].partition(" ")[0]
    return Row(row.number, tuple(cells))


def _how(table: TableFile, columns: Columns, split: int | None) -> str:
    """How a table is read, in a line."""
    names = [shown(name) for name in columns.names]
    header = "a header" if columns.header else "no header"
    between = DELIMITERS.get(table.delimiter, repr(table.delimiter))
    parts = [
        f"{table.path.name}: {between} between cells, {header}",
        f"pictures in {names[columns.picture]}",
        f"labels in {some((names[n] for n in columns.labels), 8)}",
        *([f"splits in {names[split]}"] if split is not None else []),
    ]
    used = {columns.picture, *columns.labels, split}
    unused = [name for n, name in enumerate(names) if n not in used]
    return "; ".join(parts) + (f"; not read: {some(unused, 8)}" if unused else "")


def _labels(
    path: pathlib.Path, rows: Sequence[Row], columns: Columns, data: DataConfig
) -> list[tuple[str, ...]]:
    """The labels of every row, as they are written."""
    names, separator = columns.names, data.label_separator
    wrong: list[str] = []
    found: list[tuple[str, ...]] = []
    for row in rows:
        its: list[str] = []
        for column in columns.labels:
            cell = row.cells[column]
            if columns.flags:
                its += [names[column]] if cell.lower() in _YES else []
                if cell.lower() not in (*_YES, *_NO):
                    wrong.append(
                        f"row {row.number}, column {shown(names[column])}: {shown(cell)} is "
                        "neither 0 nor 1"
                    )
            elif separator:
                its += [label.strip() for label in cell.split(separator) if label.strip()]
            elif cell:
                its.append(cell)
            elif data.max_labels == 1:
                wrong.append(f"row {row.number}, column {shown(names[column])}: it is empty")
        if len(set(its)) > data.max_labels:
            wrong.append(
                f"row {row.number} has {len(set(its))} labels, more than "
                f"data.max_labels={data.max_labels}"
            )
        found.append(tuple(dict.fromkeys(its)))
    if wrong:
        raise DataError(f"{path}: {some(wrong, _NAMED)}")
    return found


def _found(
    path: pathlib.Path,
    rows: Sequence[Row],
    columns: Columns,
    files: ListedFiles,
    data: DataConfig,
    notes: list[str],
) -> list[Found]:
    """The pictures' files; some of them may be missing, which is noted."""
    name = shown(columns.names[columns.picture])
    cells = [row.cells[columns.picture] for row in rows]
    empty = [f"row {row.number}" for row, cell in zip(rows, cells) if not cell]
    if empty:
        raise DataError(f"{path}: column {name} is empty in {some(empty, _NAMED)}")
    urls = [f"row {row.number}" for row, cell in zip(rows, cells) if "://" in cell]
    if urls:
        raise DataError(
            f"{path}: column {name} holds an address, not a file, in {some(urls, _NAMED)}; "
            "download the pictures first"
        )
    found = [files.find(cell) for cell in cells]
    missing = [f"row {r.number}: {f.path}" for r, f in zip(rows, found) if not f.exists]
    if len(missing) == len(rows) or len(missing) > data.max_unreadable:
        raise DataError(
            f"{path}: {len(missing):,} of {len(rows):,} pictures are missing: "
            f"{some(missing, _NAMED)}. {_elsewhere(path, cells[0], data)}"
        )
    if missing:
        notes.append(f"missing are {len(missing):,} pictures: {some(missing, _NAMED)}")
    respelt = [
        f"row {row.number}: {shown(cell)} is {file.path}"
        for row, cell, file in zip(rows, cells, found)
        if file.exists and not file.as_written
    ]
    if respelt:
        notes.append(f"{len(respelt):,} pictures are called otherwise: {some(respelt, 2)}")
    return found


def _elsewhere(path: pathlib.Path, name: str, data: DataConfig) -> str:
    """Where pictures may be, if they are not where they should be."""
    beside = sorted(each for each in path.parent.iterdir() if each.is_dir())
    for folder in beside:
        if ListedFiles(folder).find(name).exists:
            return f"Is data.pictures={folder.name} meant?"
    at = f"data.pictures is {data.pictures!r}" if data.pictures else "data.pictures is not set"
    return f"Relative paths start from the table's folder and data.pictures; {at}"


def _merged(
    path: pathlib.Path, entries: Iterable[Entry], data: DataConfig, notes: list[str]
) -> Iterator[Entry]:
    """One entry for each picture of a part, whose rows agree or name several labels."""
    by_picture: dict[tuple[str, str], list[Entry]] = collections.defaultdict(list)
    for entry in entries:
        by_picture[entry.part, entry.path].append(entry)
    repeated = [same for same in by_picture.values() if len(same) > 1]
    if data.max_labels == 1:
        differing = [same for same in repeated if len({each.labels for each in same}) > 1]
        if differing:
            raise DataError(
                f"{path} gives pictures several labels: {some(map(_several, differing), _NAMED)}. "
                "Remove the wrong rows, or set data.max_labels to how many a picture may have"
            )
    if repeated:
        rows = sum(len(same) - 1 for same in repeated)
        how = "counts once" if data.max_labels == 1 else "has the labels of all its rows"
        notes.append(
            f"{rows:,} rows repeat a picture, which {how}: {some(map(_several, repeated), 2)}"
        )
    for first, *others in by_picture.values():
        labels = tuple(dict.fromkeys(label for each in (first, *others) for label in each.labels))
        if len(labels) > data.max_labels:
            raise DataError(
                f"{path}: {_several([first, *others])} have {len(labels)} labels together, more "
                f"than data.max_labels={data.max_labels}"
            )
        yield first._replace(labels=labels)


def _several(same: Sequence[Entry]) -> str:
    rows = " and ".join(each.place for each in same[:3])
    labels = " and ".join(
        dict.fromkeys(shown(", ".join(each.labels)) or "none" for each in same[:3])
    )
    return f"{rows} ({same[0].path}: {labels})"


def together(labels: Iterable[tuple[str, ...]]) -> list[str]:
    """Single labels that look like several, of which each is one elsewhere."""
    known = {label for its in labels for label in its}
    return sorted(
        label
        for label in known
        for separator in _SEPARATORS
        if separator in label and {part.strip() for part in label.split(separator)} <= known
    )
