"""Costs that are kept on disk, each in a file of its own, so that none is found out twice."""

import json
import os
import threading
from typing import Any

from etils import epath

from effnetv2_jax.outputs.storage import is_local

MEASURED = "step_time"
"""Folder of a study with what was measured of its networks."""


class Kept:
    """JSON objects by key in a directory, which several processes and threads may fill."""

    def __init__(self, directory: epath.PathLike) -> None:
        """Takes a directory, local or `gs://`, which need not exist yet."""
        self._directory = epath.Path(directory)

    def read(self, key: str) -> dict[str, Any] | None:
        """What was kept under a key; None if nothing was, or no whole object is there."""
        try:
            content = json.loads(self._path(key).read_text())
        except (FileNotFoundError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def write(self, key: str, content: dict[str, Any]) -> None:
        """Keeps an object; of several writers of a key one wins, and a reader sees a whole one."""
        path, text = self._path(key), json.dumps(content, indent=2)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not is_local(path):
            path.write_text(text)
            return
        own = path.with_name(f"{key}.{os.getpid()}.{threading.get_ident()}.tmp")
        own.write_text(text)
        own.replace(path)

    def _path(self, key: str) -> epath.Path:
        return self._directory / f"{key}.json"
