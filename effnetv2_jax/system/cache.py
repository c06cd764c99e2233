"""Where things are kept that can be made again."""

import os
from pathlib import Path

from effnetv2_jax.system.paths import local_path


def cache_directory() -> Path:
    """`effnetv2_jax` in $XDG_CACHE_HOME or ~/.cache, which need not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(local_path(base)) / "effnetv2_jax"
