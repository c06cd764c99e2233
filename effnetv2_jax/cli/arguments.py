"""The words of a command line as flags, each with its value behind an equals sign."""

import re
from collections.abc import Iterator, Sequence

SWITCHES = ("help", "h", "version", "largest_batch", "nolargest_batch", "scaling", "noscaling")
"""Flags that take no value."""
_FLAG = re.compile(r"--?([A-Za-z][^=]*)(=.*)?", re.DOTALL)
_OVERRIDE = re.compile(r"(--?(?:no)?config\.[^=]+)(.*)", re.DOTALL)
_INDEX = re.compile(r"\.(-?\d+)(?=[.\[]|$)")


def normalize(arguments: Sequence[str]) -> Iterator[str]:
    """Yields them in one way of writing: `--config=FILE` for `--config FILE`, brackets for indices.

    `stages.0.share` becomes `stages[0].share`.
    """
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        flag = _FLAG.fullmatch(argument)
        takes = flag and flag[2] is None and not _is_switch(flag[1])
        if takes and waiting and not _FLAG.fullmatch(waiting[0]):
            argument += f"={waiting.pop(0)}"
        if override := _OVERRIDE.fullmatch(argument):
            argument = _INDEX.sub(r"[\1]", override[1]) + override[2]
        yield argument


def _is_switch(name: str) -> bool:
    return name in SWITCHES or name.startswith("noconfig.")
