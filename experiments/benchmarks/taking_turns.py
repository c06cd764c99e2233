"""Sides of a comparison that take turns, each in a process of its own that stays.

A side is a class: a worker process makes one object of it, which may take as long as compiling and
warming up do, and from then on calls the object's methods, one at a time, as it is told over a
pipe. What is not told to run waits for the pipe, so that no side's threads disturb another's.
Scripts beside this file import it by its name alone, and nothing heavy at their top: a worker
imports the script anew.
"""

import dataclasses
import json
import multiprocessing
import os
import shlex
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock

REASON = 500
"""Characters kept of the reason for which a side failed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a comparison."""

    name: str
    make: Callable[..., Any]
    """Called in the worker; what it returns has the methods that `Sides.call` names."""
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Set before the worker starts."""
    may_fail: bool = False
    """A failure to make it is written down, and the others go on."""


class Sides:
    """Workers, one after the other made ready; a context that ends them."""

    def __init__(self, sides: Iterable[Side]) -> None:
        self.failed: dict[str, str] = {}
        self._workers: dict[str, _Worker] = {}
        try:
            for side in sides:
                start = time.perf_counter()
                worker = _Worker(side)
                self._workers[side.name] = worker
                try:
                    worker.answer()
                except SideFailed as failure:
                    if not side.may_fail:
                        raise
                    self.failed[side.name] = str(failure)[:REASON]
                    self._workers.pop(side.name).close()
                took = f"ready or not after {time.perf_counter() - start:.0f} s"
                print(f"{side.name}: {took}", file=sys.stderr, flush=True)
        except BaseException:
            self.close()
            raise

    @property
    def names(self) -> list[str]:
        """Of the sides that are ready."""
        return list(self._workers)

    def call(self, name: str, method: str, *arguments: Any) -> Any:
        """What a method of a side's object returns."""
        return self._workers[name].call(method, *arguments)

    def turns(self, rounds: int, method: str, *arguments: Any) -> dict[str, list[Any]]:
        """What every side returns, `rounds` times in turn, every other round from the last on."""
        found: dict[str, list[Any]] = {name: [] for name in self.names}
        for index in range(rounds):
            for name in self.names[:: -1 if index % 2 else 1]:
                found[name].append(self.call(name, method, *arguments))
        return found

    def close(self) -> None:
        """Ends the workers."""
        while self._workers:
            self._workers.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class SideFailed(Exception):
    """An exception in a worker, or its end; the message names the side."""


class _Worker:
    def __init__(self, side: Side) -> None:
        context = multiprocessing.get_context("spawn")
        self._name = side.name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, side), daemon=True)
        with mock.patch.dict(os.environ, side.environment):
            self._process.start()
        theirs.close()

    def call(self, method: str, *arguments: Any) -> Any:
        self._pipe.send((method, arguments))
        return self.answer()

    def answer(self) -> Any:
        try:
            succeeded, value = self._pipe.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            raise SideFailed(f"{self._name}: the process ended with {code}") from None
        if not succeeded:
            raise SideFailed(f"{self._name}: {value}")
        return value

    def close(self) -> None:
        self._pipe.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(pipe: Connection, side: Side) -> None:
    # Libraries print while they compile, and the JSON of the script is all that belongs to stdout.
    os.dup2(2, 1)
    try:
        made = side.make(**side.arguments)
        pipe.send((True, None))
        while True:
            method, arguments = pipe.recv()
            pipe.send((True, getattr(made, method)(*arguments)))
    except EOFError:
        return
    except Exception as error:
        traceback.print_exc()
        pipe.send((False, f"{type(error).__name__}: {error}"))


def medians(found: Mapping[str, Sequence[float]], scale: float = 1.0) -> dict[str, float]:
    """The median of every side, times `scale`, to four digits."""
    return {name: rounded(scale * statistics.median(values)) for name, values in found.items()}


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, Any]:
    """Median and range of the ratios within rounds."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return {
        "median": round(statistics.median(ratios), 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def rounded(value: float) -> float:
    """A number to four digits."""
    return float(f"{value:.4g}")


def described(packages: Sequence[str]) -> dict[str, Any]:
    """Machine, date, versions and command line.

    Call it when the workers have ended: it asks JAX for its devices, and thereby takes them.
    """
    from effnetv2_jax.outputs.machine import describe_machine

    return describe_machine(packages) | {"command": shlex.join(["python", *sys.argv])}


def write(result: Mapping[str, Any], output: Path | None) -> None:
    """Prints JSON, and keeps it in `output` unless that is None."""
    text = json.dumps(result, indent=2)
    print(text)
    if output:
        output.write_text(text + "\n")
