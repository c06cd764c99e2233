"""Files that may lie in a bucket: small texts to read and write, directories to move."""

import contextlib
import os

from etils import epath
from etils.epath.backend import fsspec_backend


def is_local(path: epath.Path) -> bool:
    """Whether the path is on a file system, where files can be appended to and renamed."""
    return "://" not in os.fspath(path)


def write_text(path: epath.Path, text: str) -> None:
    """Writes a whole file; a reader, or a run killed midway, sees the old file or the new one."""
    if not is_local(path):
        # Object stores replace a file only once it is uploaded completely.
        path.write_text(text)
        return
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def read_fresh(path: epath.Path) -> str | None:
    """The text of a file that another process may be writing, as it is now; None where none is."""
    if not is_local(path):
        # fsspec answers from listings it has seen. Without it, TensorFlow reads, and forgets.
        with contextlib.suppress(ImportError):
            fsspec_backend.fs(path).invalidate_cache()
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def move_directory(source: epath.Path, target: epath.Path) -> None:
    """Moves a directory to a path where nothing is; if it fails, the source is still whole."""
    if is_local(source):
        source.rename(target)
        return
    # Object stores know no folders, so there is none to rename, nor one to move it into.
    _copy_directory(source, target)
    source.rmtree()


def _copy_directory(source: epath.Path, target: epath.Path) -> None:
    for child in source.iterdir():
        if child.is_dir():
            _copy_directory(child, target / child.name)
        else:
            child.copy(target / child.name)
