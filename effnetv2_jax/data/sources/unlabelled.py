"""Picture files to classify, without labels."""

import os
import pathlib
import sys
from collections import Counter
from collections.abc import Sequence

from effnetv2_jax.data.pictures.formats import ENDINGS
from effnetv2_jax.data.pictures.picture_file import read_picture
from effnetv2_jax.data.pictures.picture_url import is_url, read_url
from effnetv2_jax.data.record import DataError, Record
from effnetv2_jax.data.sources.folder_tree import describe, list_tree
from effnetv2_jax.system.paths import local_path


class FilesSource:
    """Files and URLs in a given order, without labels; only their paths are kept in memory."""

    exif = True
    name = "the pictures"
    fingerprint = "pictures without labels"
    class_names = ("unknown",)

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Record:
        path = self.paths[index]
        return Record(path, read_url(path) if is_url(path) else read_picture(path), ())


def list_pictures(arguments: Sequence[str]) -> list[str]:
    """The files that are named, and the pictures in the folders that are named.

    Args:
      arguments: files, URLs and folders; folders are searched at any depth, in alphabetical order.
        What is passed over there, hidden files among it, is said on standard error.

    Raises:
      DataError: a file or folder does not exist, or no picture is found at all.
    """
    paths: list[str] = []
    passed_over: Counter[str] = Counter()
    for argument in arguments:
        if is_url(argument):
            paths.append(argument)
            continue
        path = pathlib.Path(local_path(argument))
        if path.is_dir():
            tree = list_tree(str(path))
            passed_over += tree.all_passed_over()
            paths += [
                os.path.join(folder, name)
                for folder, inner in tree.walk(str(path))
                for name in inner.pictures
            ]
        elif path.exists():
            paths.append(str(path))
        else:
            raise DataError(f"there is no file or folder {argument!r}")
    said = describe(passed_over)
    if not paths:
        raise DataError(
            f"no picture ({', '.join(ENDINGS)}) in {', '.join(arguments)}"
            + (f", but {said}" if said else "")
        )
    if said:
        print(f"passed over: {said}", file=sys.stderr)
    return paths
