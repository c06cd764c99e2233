"""Reads the rows of CSV files and their like, as spreadsheets and scripts write them."""

import csv
import io
import itertools
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from effnetv2_jax.data.record import DataError

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "blank"}
"""That are looked for, and what they are called."""
_LOOKED_AT = 200
"""Rows from which the delimiter is told."""
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


class Row(NamedTuple):
    """A row of a table."""

    number: int
    """The line of the file where it ends, from 1: what an editor shows."""
    cells: tuple[str, ...]
    """Without blanks at their ends."""


class TableFile(NamedTuple):
    """The rows of a file, and how they were read."""

    path: pathlib.Path
    delimiter: str
    rows: list[Row]
    """Without those that are empty; a header is one of them."""


def read_table(path: pathlib.Path, *, delimiter: str = "", encoding: str = "") -> TableFile:
    """Reads a file; cells may be quoted, and lines end in any way.

    Args:
      delimiter: between cells; empty: the one of `DELIMITERS` that gives the rows equally many.
      encoding: as Python calls it; empty: UTF-8, or UTF-16 where a byte order mark says so.

    Raises:
      DataError: the file cannot be read or has no rows, or encoding or delimiter are not clear.
    """
    text = _text(path, encoding)
    if not text.strip():
        raise DataError(f"{path} is empty")
    if not delimiter:
        delimiter = _find_delimiter(path, text)
    return TableFile(path, delimiter, list(_rows(path, text, delimiter)))


def _text(path: pathlib.Path, encoding: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    found = next((name for mark, name in _BOMS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding or found)
    except LookupError:
        raise DataError(f"data.encoding: there is no encoding {encoding!r}") from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line}: it is not written in {encoding or found}; set data.encoding to "
            "what it is, such as cp1252 where Excel on Windows saved it, or save it as UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _rows(path: pathlib.Path, text: str, delimiter: str) -> Iterator[Row]:
    # Lines end with "\n" alone: a name may hold what Unicode calls a line break.
    if delimiter == " ":  # Several, where cells are aligned, are one.
        for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):
            if line.strip():
                yield Row(number, tuple(line.split()))
        return
    # The reader takes blanks before a quoted cell, but not behind one.
    text = re.sub(rf'" +(?={re.escape(delimiter)}|\n|$)', '"', text)
    lines = io.StringIO(text, newline="\n")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            stripped = tuple(cell.strip() for cell in cells)
            if any(stripped):
                yield Row(reader.line_num, stripped)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def _find_delimiter(path: pathlib.Path, text: str) -> str:
    """The delimiter that gives the first rows equally many cells, two or more.

    One that all rows agree on wins over one that only most agree on, as where a row is wrong. No
    delimiter at all makes a table of one column.
    """
    agreeing: dict[str, float] = {}
    for delimiter in DELIMITERS:
        try:
            rows = list(itertools.islice(_rows(path, text, delimiter), _LOOKED_AT))
        except DataError:
            continue
        counts = [len(row.cells) for row in rows]
        most = max(counts, key=counts.count, default=1)
        share = counts.count(most) / max(1, len(counts))
        if most > 1 and share > 0.5:
            agreeing[delimiter] = share
    if len(agreeing) > 1:
        agreeing.pop(" ", None)  # Blanks are in names, too.
    best = [each for each, share in agreeing.items() if share == max(agreeing.values())]
    if len(best) > 1:
        raise DataError(
            f"{path} can be read with {' or '.join(DELIMITERS[each] for each in best)} between its "
            f"cells; set data.delimiter to the one that is meant, such as {best[0]!r}"
        )
    return best[0] if best else ","
