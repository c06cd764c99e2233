"""Which files of a folder belong to which split, by their names or a pattern."""

import pathlib
import re
from typing import NamedTuple

from effnetv2_jax.data.record import DataError
from effnetv2_jax.data.sources.split_names import role_of, without_role
from effnetv2_jax.system.text import some


class SplitFile(NamedTuple):
    """A file of a data set."""

    path: pathlib.Path
    name: str
    """As it is seen from the data set's folder."""
    part: str
    """The split that it is of; empty where its name has none."""


def files_by_split(path: pathlib.Path, ending: str, pattern: str) -> list[SplitFile]:
    """The files of a folder and those in it, sorted; or a single file, which is of no split.

    Args:
      path: the folder or file.
      ending: of the files' names.
      pattern: of their names as seen from the folder, with `*` and `{split}`; empty takes all
        files, and for the split a word of their name, or of their folder's: `train`, `validation`,
        `test` and their synonyms.

    Raises:
      DataError: there are no such files, or only some of them name a split.
    """
    if path.is_file():
        return [SplitFile(path, path.name, "")]
    if not path.is_dir():
        raise DataError(f"data.path: there is no file or folder {str(path)!r}")
    there = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*"))}
    if pattern:
        matches = {name: _pattern(pattern).fullmatch(name) for name in there}
        found = [
            SplitFile(there[name], name, match.groupdict().get("split", ""))
            for name, match in matches.items()
            if match
        ]
        if not found:
            raise DataError(
                f"{path} has no file {pattern!r} (data.files); it holds {some(there, 8)}"
            )
        return found
    found = [
        SplitFile(file, name, _split_of(file))
        for name, file in there.items()
        if file.name.lower().endswith(ending) and not file.name.startswith(".")
    ]
    if not found:
        raise DataError(f"{path} has no {ending} files; it holds {some(there, 8) or 'nothing'}")
    unnamed = [file.name for file in found if not file.part]
    if unnamed and len(unnamed) < len(found):
        raise DataError(
            f"{path} has files whose names tell no split, such as {some(unnamed, 3)}, beside some "
            "that do; set data.files to a pattern, such as {split}-*" + ending
        )
    return found


def _split_of(file: pathlib.Path) -> str:
    return without_role(file.stem)[1] or role_of(file.parent.name) or ""


def _pattern(text: str) -> re.Pattern[str]:
    """A pattern of the config as a regular expression with the group `split`."""
    first, *more = (
        "[^/]*".join(map(re.escape, piece.split("*"))) for piece in text.split("{split}")
    )
    return re.compile(
        "".join(
            [
                first,
                *(r"(?P<split>[\w-]+?)" + each for each in more[:1]),
                *("(?P=split)" + each for each in more[1:]),
            ]
        )
    )
