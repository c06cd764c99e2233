"""Pictures in folders, one per class."""

import hashlib
import os
import pathlib
from collections import defaultdict
from typing import NamedTuple

from effnetv2_jax.data.pictures.picture_file import read_picture
from effnetv2_jax.data.record import DataError, Record
from effnetv2_jax.data.sources.splits import parse_split

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""Files with other names are ignored; upper and lower case are the same."""

_VALIDATION = ("val", "validation", "valid", "test")


class _File(NamedTuple):
    path: str
    """Relative to the folder that was opened, with `/`."""
    label: str


class FolderSource:
    """A picture's class is the folder it lies in, at any depth; only paths are kept in memory.

    The validation pictures are those in `val/` (or `validation/`, `valid/`, `test/`) where it
    stands beside `train/`. Otherwise `validation_share` of every class is held out. A file's name
    decides that, neither a run's seed nor the other files, so the split belongs to the data and
    hardly moves as they grow. The same goes for slices, which are random samples.
    """

    exif = True

    def __init__(self, path: str, split: str, *, validation_share: float) -> None:
        """Lists the folder.

        Args:
          path: the folder that holds `train/` and `val/`, or the class folders themselves.
          split: `train`; or `val`, `validation`, `valid` or `test`, which all mean the validation
            pictures; or a slice of either, such as `train[:10%]`. Pictures are sorted by class and
            path, in a slice by a hash of their path.
          validation_share: of every class, rounded; at least one picture of a class that has two,
            and none at all for 0.

        Raises:
          DataError: there is no such folder or split, it has fewer than two classes, a class has no
            pictures, `val/` has a class that `train/` lacks, or the slice is empty.
        """
        wanted = parse_split(split)
        if wanted.name not in ("train", *_VALIDATION):
            raise DataError(
                f"a folder of pictures has no split {wanted.name!r}; there are train and "
                f"{_VALIDATION[0]} (or {', '.join(_VALIDATION[1:])}, which mean the same)"
            )
        self._root = pathlib.Path(path).expanduser()
        if not self._root.is_dir():
            raise DataError(f"data.path: there is no folder {str(self._root)!r}")
        train, validation = _layout(self._root)
        files = _list(self._root, train)
        classes = sorted({file.label for file in files})
        _check_classes(self._root / train, classes, files)
        if validation is None:
            held_out = _held_out(files, validation_share)
            files = [file for file in files if (file in held_out) != (wanted.name == "train")]
            if not files:
                raise DataError(
                    f"{self._root} has no validation folder, and too few pictures to hold any out"
                )
        elif wanted.name != "train":
            files = _list(self._root, validation)
            _check_validation(self._root / validation, classes, files)
        if wanted.is_slice:
            files.sort(key=_hash)
            files = [files[index] for index in wanted.indices(len(files))]
        self._files = files
        self.name = f"{self._root} ({split})"
        self.class_names = tuple(classes)
        self._labels = {name: label for label, name in enumerate(classes)}
        digest = hashlib.sha256(repr(classes).encode())
        for file in files:
            digest.update(f"{file.path}\n".encode(errors="surrogateescape"))
        self.fingerprint = digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Record:
        file = self._files[index]
        path = f"{self._root}/{file.path}"
        return Record(path, read_picture(path), (self._labels[file.label],))


def has_validation(path: str) -> bool:
    """Whether the folder has validation pictures of its own, so that none are held out."""
    root = pathlib.Path(path).expanduser()
    return root.is_dir() and _layout(root)[1] is not None


def _layout(root: pathlib.Path) -> tuple[str, str | None]:
    """Where the class folders lie for training and for evaluation; None: hold out."""
    folders = _subfolders(root)
    # A class may be called "train": only together with its counterpart, or alone, is it a split.
    if "train" in folders:
        validation = next((name for name in _VALIDATION if name in folders), None)
        if validation is not None or folders == ["train"]:
            return "train", validation
    return ".", None


def _subfolders(folder: pathlib.Path) -> list[str]:
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and not entry.name.startswith(".")
    )


def _list(root: pathlib.Path, part: str) -> list[_File]:
    """All pictures of the class folders in `root / part`, sorted by class and path.

    Class folders may be links; links to folders inside them are not followed, as they may loop.
    """
    files = []
    for label in _subfolders(root / part):
        for folder, inner, names in os.walk(root / part / label, onerror=_refuse):
            inner[:] = [name for name in inner if not name.startswith(".")]
            relative = pathlib.Path(folder).relative_to(root).as_posix()
            files += [
                _File(f"{relative}/{name}", label)
                for name in names
                if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
            ]
    # By class first, since a slash does not sort before every character of a name.
    return sorted(files, key=lambda file: (file.label, file.path))


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be listed: {error.strerror}") from error


def _check_classes(folder: pathlib.Path, classes: list[str], files: list[_File]) -> None:
    empty = sorted(set(_subfolders(folder)) - set(classes))
    if not files:
        raise DataError(
            f"{folder} holds no pictures in class folders; it needs a folder for every class, "
            f"with files named {', '.join(EXTENSIONS)}"
        )
    if empty:
        raise DataError(f"class folders without pictures in {folder}: {', '.join(empty)}")
    if len(classes) < 2:
        raise DataError(
            f"{folder} has the single class {classes[0]!r}; a classifier needs two or more, each "
            "in a folder of its own"
        )


def _check_validation(folder: pathlib.Path, classes: list[str], files: list[_File]) -> None:
    if not files:
        raise DataError(f"{folder} holds no pictures in class folders")
    unknown = sorted({file.label for file in files} - set(classes))
    if unknown:
        raise DataError(
            f"{folder} has classes that the training folder lacks: {', '.join(unknown)}"
        )


def _held_out(files: list[_File], share: float) -> set[_File]:
    """Of every class the pictures whose hashed names come first."""
    if not share:
        return set()
    by_class: dict[str, list[_File]] = defaultdict(list)
    for file in files:
        by_class[file.label].append(file)
    held_out: set[_File] = set()
    for members in by_class.values():
        count = min(max(1, round(share * len(members))), len(members) - 1)
        held_out.update(sorted(members, key=_hash)[:count])
    return held_out


def _hash(file: _File) -> bytes:
    return hashlib.sha256(file.path.encode(errors="surrogateescape")).digest()
