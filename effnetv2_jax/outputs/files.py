"""Writing small text files."""

import os

from etils import epath


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
