"""A folder of pictures as it was listed: which pictures are in which split."""

import pathlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from effnetv2_jax.data.pictures.formats import ENDINGS
from effnetv2_jax.data.record import DataError
from effnetv2_jax.data.sources.folder_layout import (
    Layout,
    class_folders,
    find_layout,
    shown,
    some,
)
from effnetv2_jax.data.sources.folder_tree import Folder, describe, list_tree
from effnetv2_jax.data.sources.held_out import STANDS_IN, Half
from effnetv2_jax.data.sources.label_lists import list_in
from effnetv2_jax.data.sources.split_names import Role, role_of

_LOOSE = "pictures outside of class folders"


class File(NamedTuple):
    path: str
    """Relative to the folder that was opened, with `/`."""
    label: str
    """The name of its class."""


class Part(NamedTuple):
    """What a split is taken from."""

    folders: tuple[str, ...]
    """Those of the splits; "" is the folder of the class folders itself."""
    title: str
    """Where it comes from, if the split's name does not say it."""
    half: Half | None = None
    """The pictures held out for evaluation, or the others; None is both."""


class PictureFolder:
    """A folder of pictures, listed once, from which sources take their splits."""

    def __init__(self, path: str, *, layout: Literal["auto", "classes"] = "auto") -> None:
        """Lists the folder.

        Args:
          path: the folder that holds those of the splits, or the class folders themselves.
          layout: `classes`: it holds the class folders, whatever they are called.

        Raises:
          DataError: there is no such folder, or it cannot be listed.
        """
        self.root = pathlib.Path(path).expanduser()
        if not self.root.is_dir():
            what = "is no folder" if self.root.exists() else "is missing"
            hint = "; unpack it first" if self.root.is_file() else ""
            raise DataError(f"data.path: there is no folder {str(self.root)!r}: it {what}{hint}")
        self._tree = list_tree(str(self.root))
        self._by_name = {folder.name: folder for folder in self._tree.folders} | {"": self._tree}
        self._layout, self._refusal = Layout({}), None
        if layout == "auto":
            try:
                self._layout = find_layout(self._tree, str(self.root))
            except DataError as error:
                # Of two ways to read it a split's name may say which is meant.
                self._refusal = str(error)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of how the folder is read."""
        return self._layout.notes

    @property
    def splits(self) -> dict[str, int]:
        """How many pictures are in the class folders of each folder of a split."""
        return {
            name: sum(inner.count() for inner in self._by_name[name].folders)
            for name in self._layout.splits
        }

    @property
    def has_validation(self) -> bool:
        """Whether there are pictures for evaluation of their own, so that none are held out."""
        return not {"val", "test"}.isdisjoint(
            {*self._layout.splits.values(), *self._layout.unlabelled.values()}
        )

    def lists(self) -> dict[Role, pathlib.Path]:
        """Lists of labels that folders of splits bring in place of class folders, by split."""
        found = {}
        for folder in self._tree.folders:
            role, path = role_of(folder.name), list_in(self.root / folder.name)
            if role is not None and path is not None:
                found[role] = path
        return found

    def part(self, name: str) -> Part:
        """What a split of this name is taken from.

        Raises:
          DataError: there is no such split, or it is not clear what is meant.
        """
        splits, role = self._layout.splits, role_of(name)
        if self._refusal is not None:
            if role is None and name in self._by_name and class_folders(self._by_name[name]):
                return Part((name,), "")
            raise DataError(self._refusal)
        if name in splits:
            held_out = splits[name] == "train" and not self.has_validation
            return Part((name,), "", "rest" if held_out else None)
        if name == "all":
            return Part(tuple(splits) or ("",), "")
        if role is None:
            there = " and ".join(map(shown, splits or ("train", "val")))
            raise DataError(
                f"a folder of pictures has no split {name!r}; there are {there}, and `all` is all "
                "pictures"
            )
        if splits:
            return self._split(name, role)
        if role == "train":
            return Part(("",), "", "rest")
        return Part(("",), "held out", "held out")

    def _split(self, name: str, role: Role) -> Part:
        """The folder of a split that has a synonym of this name, or takes its place."""
        splits = self._layout.splits
        for wanted in STANDS_IN[role]:
            found = [folder for folder, its in splits.items() if its == wanted]
            exact = [folder for folder in found if folder.casefold() == name.casefold()]
            found = exact if len(exact) == 1 else found
            if len(found) > 1:
                raise DataError(
                    f"{self.root} holds {some(found)}; set data.train_split and data.eval_split to "
                    "those that you mean"
                )
            if found:
                half = self.part(found[0]).half
                return Part((found[0],), f"{shown(found[0])}/", half)
            for folder, its in self._layout.unlabelled.items():
                if its == wanted:
                    self._refuse_unlabelled(folder)
        if role == "train":
            raise DataError(
                f"{self.root} holds only {some(splits)}, no folder train/: it can be evaluated, "
                f"with data.eval_split={next(iter(splits))}, but not trained on"
            )
        train = self._split("train", "train").folders
        return Part(train, f"held out of {shown(train[0])}/", "held out")

    def _refuse_unlabelled(self, name: str) -> None:
        folder = self._by_name[name]
        train = next((n for n, role in self._layout.splits.items() if role == "train"), None)
        hint = ""
        if train is not None:
            hint = f"; data.path={self.root}/{train} holds pictures out of {train}/ instead"
        raise DataError(
            f"{self.root / name} holds no pictures in class folders{_instead(folder)}{hint}"
        )

    def files(self, part: Part) -> list[File]:
        """All pictures of a part, sorted by class folder and path, whichever half they are in."""
        found: list[tuple[str, str]] = []
        for split in part.folders:
            for folder in self._by_name[split].folders:
                path = f"{split}/{folder.name}" if split else folder.name
                found += [
                    (folder.name, f"{inside}/{name}")
                    for inside, inner in folder.walk(path)
                    for name in inner.pictures
                ]
        # By class first, since a slash does not sort before every character of a name.
        return [File(path, normal(label)) for label, path in sorted(found)]

    def training_classes(self, part: Part) -> set[str]:
        """The classes of the training pictures, or of the part's where there are none."""
        folders = set(part.folders)
        train = {name for name, role in self._layout.splits.items() if role == "train"}
        if train and not folders <= train:
            folders = train
        return {normal(name) for part in folders for name in class_folders(self._by_name[part])}

    def passed_over(self, part: Part) -> dict[str, Counter[str]]:
        """What is not read in each folder of a part, and beside them, by what it is."""
        found = {}
        for split in dict.fromkeys(("", *part.folders)):
            folder = self._by_name[split]
            found[split] = folder.passed_over + Counter({_LOOSE: len(folder.pictures)})
            if split in part.folders:
                for inner in folder.folders:
                    found[split] += inner.all_passed_over()
        return found

    def check_trainable(self, part: Part, classes: Sequence[str]) -> None:
        """Raises a DataError where a part has no classes, a single one, or empty ones."""
        folder = self._by_name[part.folders[0]]
        path = self.root / part.folders[0]
        if not classes:
            raise DataError(
                f"{path} holds no pictures in class folders{_instead(folder)}; it needs a folder "
                f"for every class, with files named {', '.join(ENDINGS)}"
            )
        empty = [inner for inner in folder.folders if not inner.count()]
        if empty:
            named = ", ".join(f"{shown(inner.name)}{_instead(inner)}" for inner in empty)
            raise DataError(f"class folders without pictures in {path}: {named}")
        if len(classes) < 2:
            raise DataError(
                f"{path} has the single class {classes[0]!r}; a classifier needs two or more, each "
                f"in a folder of its own{self._deeper(part)}{_instead(folder, own=True)}"
            )

    def _deeper(self, part: Part) -> str:
        """Where the class folders may be, if they are not where they should be."""
        path, folder = self.root / part.folders[0], self._by_name[part.folders[0]]
        while len(inner := [each for each in folder.folders if each.count()]) == 1:
            folder = inner[0]
            path /= folder.name
        return f"; is data.path={path} meant?" if inner else ""


def normal(name: str) -> str:
    """A class's name in Unicode's composed form: file systems differ in how they write accents."""
    return unicodedata.normalize("NFC", name)


def _instead(folder: Folder, *, own: bool = False) -> str:
    """What a folder holds that are no pictures, in brackets; `own` leaves out those in it."""
    found = describe(folder.passed_over if own else folder.all_passed_over())
    return f" (there are {found})" if found else ""
