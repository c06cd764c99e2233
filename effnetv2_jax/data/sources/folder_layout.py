"""Decides from what a folder holds where its class folders lie, and which splits there are.

What is clear is taken; what could be meant in two ways is refused with what was seen and how to
state it.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from effnetv2_jax.data.record import DataError
from effnetv2_jax.data.sources.folder_tree import Folder
from effnetv2_jax.data.sources.split_names import Role, is_kind, role_of, without_role
from effnetv2_jax.system import text

_MANY = 10
"""More folders than this that hold subfolders of the same names are hardly splits."""


class Layout(NamedTuple):
    """Where the class folders of a folder of pictures lie."""

    splits: dict[str, Role]
    """The folders of its splits by name, in alphabetical order; empty: it holds the class folders
    itself."""
    unlabelled: dict[str, Role] = {}  # noqa: RUF012  Nobody writes to it.
    """Folders with the names of splits, but without pictures in class folders."""
    notes: tuple[str, ...] = ()
    """What a user should know of how it was read."""


def find_layout(tree: Folder, path: str) -> Layout:
    """Finds out whether the folders in `tree` are classes or splits.

    Folders without pictures are neither.

    Args:
      tree: the folder of pictures.
      path: its name in messages.

    Raises:
      DataError: they could be either, or are neither.
    """
    tops = [folder for folder in tree.folders if folder.count()]
    inner = {folder.name: class_folders(folder) for folder in tops}
    roles = {folder.name: role for folder in tree.folders if (role := role_of(folder.name))}
    splits = {name: roles[name] for name, folders in inner.items() if folders and name in roles}
    unlabelled = {name: role for name, role in roles.items() if name not in splits}
    loose = [name for name in unlabelled if name in inner]
    others = [name for name in inner if name not in roles]

    if splits:
        parts = {*splits.values()}
        rest = [*others, *(name for name in loose if parts == {roles[name]})]
        if rest and not (len(parts) > 1 and "train" in parts):
            first = next(iter(splits))
            raise DataError(
                f"{path} holds {some(splits)}, which looks like a split since it has folders "
                f"inside ({some(inner[first])}), beside {some(rest)}, which does not. To use "
                f"{shown(first)}/ alone, set data.path to {shown(f'{path}/{first}')}; "
                f"{_as_classes(inner)}"
            )
        for name in splits:
            _refuse_kinds(inner[name], f"{path}/{name}", "")
        notes = [f"not read: {some(others)} beside {some(splits)}"] if others else []
        notes += [
            f"{some(same)} are read only where a split is called so" for same in _alike(splits)
        ]
        return Layout(splits, unlabelled, tuple(notes))
    if len({roles[name] for name in loose}) > 1 or (loose and not others):
        raise DataError(
            f"{path} holds no pictures in class folders: {some(loose)} has the name of a split, "
            "but no folders inside. Every class needs a folder of its own there, such as "
            f"{shown(loose[0])}/CLASS/; {_as_classes(loose)}"
        )
    by_size = sorted(tops, key=Folder.count, reverse=True)
    _refuse_nested(inner, path)
    _refuse_pairs(list(inner), path)
    _refuse_kinds(list(inner), path, f"; {_as_classes(inner)}")
    notes = _same_folders({folder.name: inner[folder.name] for folder in by_size}, path)
    if loose:
        notes.append(f"{some(loose)} is taken for a class, not for a split")
    return Layout({}, {}, tuple(notes))


def class_folders(folder: Folder) -> list[str]:
    """The names of the folders directly in one that hold pictures at any depth."""
    return [inner.name for inner in folder.folders if inner.count()]


def _refuse_nested(inner: Mapping[str, Sequence[str]], path: str) -> None:
    """Raises a DataError where a single folder holds the classes, or class folders the splits."""
    for name, folders in inner.items():
        if len(inner) == 1 and len(folders) > 1:
            raise DataError(
                f"{path} holds the single folder {shown(name)}/, with {some(folders)} inside; set "
                f"data.path to {shown(f'{path}/{name}')}"
            )
        roles = [role_of(folder) for folder in folders]
        if folders and (len({*roles} - {None}) > 1 or None not in roles):
            raise DataError(
                f"the folder {shown(name)}/ in {path} holds {some(folders)}, which look like "
                "splits, but these have to be outermost: train/CLASS/ and val/CLASS/; "
                f"{_as_classes(inner)}"
            )


def _refuse_pairs(names: Sequence[str], path: str) -> None:
    """Raises a DataError where names differ only in a split, as `cats_train` and `cats_test`."""
    by_rest: dict[tuple[str, ...], dict[Role, str]] = collections.defaultdict(dict)
    for name in names:
        rest, role = without_role(name)
        if role is not None:
            by_rest[rest][role] = name
    for found in by_rest.values():
        if len(found) > 1:
            raise DataError(
                f"{path} holds {some(found.values())}, whose names differ only by split. Put the "
                "pictures into train/CLASS/ and val/CLASS/, with a folder for every class; "
                f"{_as_classes(found.values())}"
            )


def _refuse_kinds(names: Sequence[str], path: str, hint: str) -> None:
    if len(names) > 1 and all(map(is_kind, names)):
        raise DataError(
            f"{path} holds {some(names)}, which look like kinds of files, not like classes. Every "
            f"class needs a folder of its own{hint}"
        )


def _alike(splits: Mapping[str, Role]) -> list[list[str]]:
    """Folders of splits that mean the same, such as `val` and `valid`."""
    by_role: dict[Role, list[str]] = collections.defaultdict(list)
    for name, role in splits.items():
        by_role[role].append(name)
    return [names for names in by_role.values() if len(names) > 1]


def _same_folders(inner: Mapping[str, Sequence[str]], path: str) -> list[str]:
    """Refuses folders that hold the same folders, as splits do; notes what only resembles it.

    Args:
      inner: the names of the folders in each, the one with most pictures first.
    """
    nested = {name: set(folders) for name, folders in inner.items() if folders}
    common = set.intersection(*nested.values()) if nested else set()
    if len(nested) < 2 or len(common) < 2:
        return []
    seen = (
        f"{some(sorted(nested))} in {path} hold folders of the same names ({some(sorted(common))})"
    )
    largest = max(nested.values(), key=len)
    if len(nested) > _MANY or not all(folders <= largest for folders in nested.values()):
        return [f"{seen}; the outer ones are taken for the classes"]
    one, other = list(nested)[:2]
    raise DataError(
        f"{seen}, as splits do, but their own names are not those of splits. If they are splits, "
        f"call them train and val, or set data.train_split={shown(one)} and "
        f"data.eval_split={shown(other)}; "
        f"{_as_classes(inner)}"
    )


def _as_classes(names: Iterable[str]) -> str:
    return (
        f"if {some(names)} should be classes, set data.layout=classes (of data.prepare: "
        "--layout=classes)"
    )


def some(names: Iterable[str]) -> str:
    """Folders as a message names them: all, or the first of many."""
    return text.some((f"{shown(name)}/" for name in names), 8)


def shown(name: str) -> str:
    """A name as a message can have it: in quotes where blanks or unprintable characters are."""
    if not name.isprintable():
        return ascii(name)
    return name if name == name.strip() else repr(name)
