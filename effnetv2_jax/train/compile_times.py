"""About how long a program takes to compile: as the last time, or else by a rule of thumb."""

import contextlib
import json
from pathlib import Path

from effnetv2_jax.system.cache import cache_directory

_FILE = "compile_seconds.json"
_KEPT = 200
"""Programs that are remembered."""
_RULE = {"cpu": (5.0, 0.2), "gpu": (20.0, 0.3), "tpu": (20.0, 0.3)}
"""By platform: seconds of any program, and for each parameter array of its network."""


def expected(program: str, *, platform: str, arrays: int) -> float:
    """Seconds that a program may take to compile.

    Args:
      program: names it, such as `cpu efficientnetv2-s 128 px x 32`.
      arrays: parameter arrays of its network.
    """
    constant, each = _RULE.get(platform, _RULE["gpu"])
    return _read().get(program, constant + each * arrays)


def record(program: str, seconds: float) -> None:
    """Remembers how long a program took, if that can be."""
    known = _read()
    known.pop(program, None)
    kept = dict(list((known | {program: round(seconds, 1)}).items())[-_KEPT:])
    with contextlib.suppress(OSError):
        _path().parent.mkdir(parents=True, exist_ok=True)
        temporary = _path().with_suffix(".tmp")
        temporary.write_text(json.dumps(kept))
        temporary.replace(_path())


def _path() -> Path:
    return cache_directory() / _FILE


def _read() -> dict[str, float]:
    try:
        content = json.loads(_path().read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {name: value for name, value in content.items() if isinstance(value, int | float)}
