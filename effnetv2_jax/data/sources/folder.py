"""Pictures in folders, one per class."""

import functools
import hashlib
import pathlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from effnetv2_jax.data.pictures.formats import ENDINGS
from effnetv2_jax.data.pictures.picture_file import read_picture
from effnetv2_jax.data.record import DataError, Record
from effnetv2_jax.data.sources.folder_layout import (
    Layout,
    class_folders,
    find_layout,
    shown,
    some,
)
from effnetv2_jax.data.sources.folder_tree import Folder, describe, list_tree
from effnetv2_jax.data.sources.split_names import Role, role_of
from effnetv2_jax.data.sources.splits import parse_split

_ORDER: dict[Role, tuple[Role, ...]] = {
    "train": ("train",),
    "val": ("val", "test"),
    "test": ("test", "val"),
}
"""For a split that is asked for, those that stand in for it, itself first."""

_LOOSE = "pictures outside of class folders"


class _File(NamedTuple):
    path: str
    """Relative to the folder that was opened, with `/`."""
    label: str
    """The name of its class."""


class _Part(NamedTuple):
    """What a split is taken from."""

    folders: tuple[str, ...]
    """Those of the splits; "" is the folder of the class folders itself."""
    title: str
    """Where it comes from, if the split's name does not say it."""
    half: Literal["held out", "rest"] | None = None
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

    def part(self, name: str) -> _Part:
        """What a split of this name is taken from.

        Raises:
          DataError: there is no such split, or it is not clear what is meant.
        """
        splits, role = self._layout.splits, role_of(name)
        if self._refusal is not None:
            if role is None and name in self._by_name and class_folders(self._by_name[name]):
                return _Part((name,), "")
            raise DataError(self._refusal)
        if name in splits:
            held_out = splits[name] == "train" and not self.has_validation
            return _Part((name,), "", "rest" if held_out else None)
        if name == "all":
            return _Part(tuple(splits) or ("",), "")
        if role is None:
            there = " and ".join(map(shown, splits or ("train", "val")))
            raise DataError(
                f"a folder of pictures has no split {name!r}; there are {there}, and `all` is all "
                "pictures"
            )
        if splits:
            return self._split(name, role)
        if role == "train":
            return _Part(("",), "", "rest")
        return _Part(("",), "held out", "held out")

    def _split(self, name: str, role: Role) -> _Part:
        """The folder of a split that has a synonym of this name, or takes its place."""
        splits = self._layout.splits
        for wanted in _ORDER[role]:
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
                return _Part((found[0],), f"{shown(found[0])}/", half)
            for folder, its in self._layout.unlabelled.items():
                if its == wanted:
                    self._refuse_unlabelled(folder)
        if role == "train":
            raise DataError(
                f"{self.root} holds only {some(splits)}, no folder train/: it can be evaluated, "
                f"with data.eval_split={next(iter(splits))}, but not trained on"
            )
        train = self._split("train", "train").folders
        return _Part(train, f"held out of {shown(train[0])}/", "held out")

    def _refuse_unlabelled(self, name: str) -> None:
        folder = self._by_name[name]
        train = next((n for n, role in self._layout.splits.items() if role == "train"), None)
        hint = ""
        if train is not None:
            hint = f"; data.path={self.root}/{train} holds pictures out of {train}/ instead"
        raise DataError(
            f"{self.root / name} holds no pictures in class folders{_instead(folder)}{hint}"
        )

    def files(self, part: _Part) -> list[_File]:
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
        return [_File(path, normal(label)) for label, path in sorted(found)]

    def training_classes(self, part: _Part) -> set[str]:
        """The classes of the training pictures, or of the part's where there are none."""
        folders = set(part.folders)
        train = {name for name, role in self._layout.splits.items() if role == "train"}
        if train and not folders <= train:
            folders = train
        return {normal(name) for part in folders for name in class_folders(self._by_name[part])}

    def passed_over(self, part: _Part) -> dict[str, Counter[str]]:
        """What is not read in each folder of a part, and beside them, by what it is."""
        found = {}
        for split in dict.fromkeys(("", *part.folders)):
            folder = self._by_name[split]
            found[split] = folder.passed_over + Counter({_LOOSE: len(folder.pictures)})
            if split in part.folders:
                for inner in folder.folders:
                    found[split] += inner.all_passed_over()
        return found

    def check_trainable(self, part: _Part, classes: Sequence[str]) -> None:
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

    def _deeper(self, part: _Part) -> str:
        """Where the class folders may be, if they are not where they should be."""
        path, folder = self.root / part.folders[0], self._by_name[part.folders[0]]
        while len(inner := [each for each in folder.folders if each.count()]) == 1:
            folder = inner[0]
            path /= folder.name
        return f"; is data.path={path} meant?" if inner else ""


class FolderSource:
    """A picture's class is the folder it lies in, at any depth; only paths are kept in memory.

    The pictures of a split are those in the folder of its name, or of a synonym (`folder_layout`
    and `split_names` say which). Where there are no pictures for evaluation, `validation_share` of
    every class is held out. A file's name decides that, neither a run's seed nor the other files,
    so the split belongs to the data and hardly moves as they grow. The same goes for slices, which
    are random samples.
    """

    exif = True

    def __init__(
        self,
        path: str | PictureFolder,
        split: str,
        *,
        validation_share: float,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Takes a split of a folder.

        Args:
          path: the folder, which is listed unless it has been.
          split: `train`, `val`, `test`, or what else a folder of a split is called; `all`, all
            pictures; or a slice of one, such as `train[:10%]`. `val` and `test` stand in for each
            other, and for what is held out. Pictures are sorted by class and path, in a slice by
            a hash of their path.
          validation_share: of every class, rounded; at least one picture of a class that has two,
            and none at all for 0.
          class_names: the classes in an order that is known already; the folder may lack some.
            None orders those that it has by name, and names that are all numbers as numbers.

        Raises:
          DataError: there is no such folder or split, or it is not clear what is meant; it has
            fewer than two classes or one without pictures, and training pictures are meant; there
            are classes that training or `class_names` lack; or the slice is empty.
        """
        folder = path if isinstance(path, PictureFolder) else PictureFolder(path)
        wanted = parse_split(split)
        part = folder.part(wanted.name)
        files = folder.files(part)
        trains = part.half is not None or role_of(wanted.name) == "train"
        classes = in_order({file.label for file in files})
        if trains:
            folder.check_trainable(part, classes)
        elif not files:
            raise DataError(f"{folder.root}/{part.folders[0]} holds no pictures in class folders")
        else:
            known = in_order(folder.training_classes(part))
            _check_known(classes, known, f"{folder.root} ({split})", "the training folder lacks")
            classes = known
        if class_names is not None:
            known = [normal(name) for name in class_names]
            _check_known(classes, known, f"{folder.root} ({split})", "are not known")
            classes = list(class_names)
        self.available = len(files)
        """Pictures of the whole split, of which this is a slice, or what is held out."""
        if part.half is not None:
            held_out = _held_out(files, validation_share)
            files = [file for file in files if (file in held_out) == (part.half == "held out")]
            if not files:
                raise DataError(
                    f"{folder.root} has no validation folder, and too few pictures to hold any out"
                )
        if wanted.is_slice:
            files.sort(key=_hash)
            files = [files[index] for index in wanted.indices(len(files))]
        self._root = folder.root
        self.name = f"{self._root} ({split}{': ' + part.title if part.title else ''})"
        self.class_names = tuple(classes)
        """In the order of their labels."""
        self.splits = folder.splits
        """How many pictures are in each folder of a split; empty where there are none."""
        self.folders = part.folders
        """The folders of splits that the pictures come from."""
        self.notes = folder.notes
        """What a user should know of how the folder is read."""
        self.passed_over = folder.passed_over(part)
        """How many files and folders are not read, by folder and what they are."""
        numbers = {normal(name): label for label, name in enumerate(classes)}
        self.paths = [file.path for file in files]
        """Of the pictures, relative to the folder."""
        self._labels = np.array([numbers[file.label] for file in files], np.int32)
        digest = hashlib.sha256(repr(classes).encode())
        for file_path in self.paths:
            digest.update(f"{file_path}\n".encode(errors="surrogateescape"))
        self.fingerprint = digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Record:
        path = f"{self._root}/{self.paths[index]}"
        return Record(path, read_picture(path), (int(self._labels[index]),))

    @property
    def class_counts(self) -> tuple[int, ...]:
        """How many pictures each class has, in the order of `class_names`."""
        counts = np.bincount(self._labels, minlength=len(self.class_names))
        return tuple(counts.tolist())

    def same_class(self, index: int) -> Sequence[int]:
        """The indices of all examples of the class of example `index`, itself included."""
        order, ends = self._by_class
        label = int(self._labels[index])
        return cast(Sequence[int], order[ends[label] : ends[label + 1]])

    @functools.cached_property
    def _by_class(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The examples sorted by class, and where each class begins and ends."""
        order = np.argsort(self._labels, kind="stable")
        ends = np.cumsum([0, *self.class_counts])
        return order, ends


def normal(name: str) -> str:
    """A class's name in Unicode's composed form: file systems differ in how they write accents."""
    return unicodedata.normalize("NFC", name)


def in_order(names: Iterable[str]) -> list[str]:
    """Class names in alphabetical order; those that are all numbers in the order of numbers."""
    names = sorted(names)
    if all(name.isascii() and name.isdigit() for name in names):
        names.sort(key=int)
    return names


def _check_known(classes: Iterable[str], known: Iterable[str], source: str, why: str) -> None:
    unknown = in_order({*classes} - {*known})
    if unknown:
        named = ", ".join(map(shown, unknown[:8])) + (", ..." if len(unknown) > 8 else "")
        raise DataError(f"{source} has classes that {why}: {named}")


def _instead(folder: Folder, *, own: bool = False) -> str:
    """What a folder holds that are no pictures, in brackets; `own` leaves out those in it."""
    found = describe(folder.passed_over if own else folder.all_passed_over())
    return f" (there are {found})" if found else ""


def _held_out(files: list[_File], share: float) -> set[_File]:
    """Of every class the pictures whose hashed names come first."""
    if not share:
        return set()
    by_class: dict[str, list[_File]] = {}
    for file in files:
        by_class.setdefault(file.label, []).append(file)
    held_out: set[_File] = set()
    for members in by_class.values():
        count = min(max(1, round(share * len(members))), len(members) - 1)
        held_out.update(sorted(members, key=_hash)[:count])
    return held_out


def _hash(file: _File) -> bytes:
    return hashlib.sha256(file.path.encode(errors="surrogateescape")).digest()
