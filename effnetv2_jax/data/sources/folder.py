"""Pictures in folders, one per class."""

import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from effnetv2_jax.data.pictures.picture_file import read_picture
from effnetv2_jax.data.record import DataError, Record
from effnetv2_jax.data.sources.folder_layout import shown
from effnetv2_jax.data.sources.held_out import by_hash, held_out
from effnetv2_jax.data.sources.label_names import in_order
from effnetv2_jax.data.sources.picture_folder import PictureFolder, normal
from effnetv2_jax.data.sources.split_names import role_of
from effnetv2_jax.data.sources.splits import parse_split


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
            out = held_out(((file.label, file) for file in files), validation_share)
            files = [file for file in files if (file.path in out) == (part.half == "held out")]
            if not files:
                raise DataError(
                    f"{folder.root} has no validation folder, and too few pictures to hold any out"
                )
        if wanted.is_slice:
            files.sort(key=by_hash)
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
        path = self.key(index)
        return Record(path, read_picture(path), (int(self._labels[index]),))

    def key(self, index: int) -> str:
        """The path of example `index`, which is its `Record.key`."""
        return f"{self._root}/{self.paths[index]}"

    def labels_of(self, index: int) -> tuple[int, ...]:
        """The label of a picture, without reading it."""
        return (int(self._labels[index]),)

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


def _check_known(classes: Iterable[str], known: Iterable[str], source: str, why: str) -> None:
    unknown = in_order({*classes} - {*known})
    if unknown:
        named = ", ".join(map(shown, unknown[:8])) + (", ..." if len(unknown) > 8 else "")
        raise DataError(f"{source} has classes that {why}: {named}")
