"""Long lists that several machines share out, and that a command goes on with after a stop."""

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from effnetv2_jax.cli.errors import CommandError


def take_shard(paths: Sequence[str], shard: str) -> list[str]:
    """The paths of a shard such as `3/64`: every 64th, from the third on.

    Raises:
      CommandError: there is no such shard.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= count:
        raise CommandError(f"--shard={shard} makes no sense; the third of 64 is --shard=3/64")
    return list(paths[index - 1 :: count])


@contextlib.contextmanager
def continued(file: Path, paths: Sequence[str]) -> Iterator[tuple[TextIO, Sequence[str]]]:
    """Opens a file of a JSON object a line to append to, with the paths that it has not yet.

    A last line that a stop left torn is dropped.

    Args:
      paths: of all lines, in their order.

    Raises:
      CommandError: the file has lines of other paths, or cannot be written.
    """
    try:
        with file.open("a+", encoding="utf-8", errors="surrogateescape", newline="\n") as stream:
            stream.seek(0)
            done, end = 0, 0
            while (line := stream.readline()).endswith("\n"):
                found = _path_of(line)
                if done == len(paths) or found != paths[done]:
                    raise CommandError(
                        f"{file} goes on with other pictures from line {done + 1} on ({found!r}); "
                        "give the same pictures and --shard as before, or another --output"
                    )
                done, end = done + 1, stream.tell()
            stream.seek(end)
            stream.truncate()
            yield stream, paths[done:]
    except OSError as error:
        raise CommandError(f"--output={file}: {error.strerror}") from error


def _path_of(line: str) -> str | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found.get("path") if isinstance(found, dict) else None
