"""Picture files to classify, without labels."""

import os
import pathlib
from collections.abc import Sequence

from effnetv2_jax.data.pictures.picture_file import read_picture
from effnetv2_jax.data.record import DataError, Record
from effnetv2_jax.data.sources.folder import EXTENSIONS


class FilesSource:
    """Files in a given order, without labels; only their paths are kept in memory."""

    exif = True
    name = "the pictures"
    fingerprint = "pictures without labels"
    class_names = ("unknown",)

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Record:
        return Record(self.paths[index], read_picture(self.paths[index]), ())


def list_pictures(arguments: Sequence[str]) -> list[str]:
    """The files that are named, and those with a picture's ending in the folders that are named.

    Args:
      arguments: files and folders; folders are searched at any depth, in alphabetical order.

    Raises:
      DataError: a file or folder does not exist, or no picture is found at all.
    """
    paths: list[str] = []
    for argument in arguments:
        path = pathlib.Path(argument).expanduser()
        if path.is_dir():
            for folder, folders, files in os.walk(path):
                folders.sort()
                paths += [
                    os.path.join(folder, file)
                    for file in sorted(files)
                    if file.lower().endswith(EXTENSIONS)
                ]
        elif path.exists():
            paths.append(str(path))
        else:
            raise DataError(f"there is no file or folder {argument!r}")
    if not paths:
        raise DataError(f"no picture ({', '.join(EXTENSIONS)}) in {', '.join(arguments)}")
    return paths
