"""Where things are kept that can be made again."""

import os
from pathlib import Path


def cache_directory() -> Path:
    """`effnetv2_jax` in $XDG_CACHE_HOME or ~/.cache, which need not exist yet."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "effnetv2_jax"
