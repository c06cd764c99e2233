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
import multiprocessing.connection
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
    """Workers, made ready; a context that ends them.

    Args:
      sides: their names differ.
      at_once: how many get ready at a time, begun in the order of `sides`.
      within: seconds after which the sides that may fail and are not ready count as failed.

    Raises:
      SideFailed: a side failed that may not.
    """

    def __init__(
        self, sides: Iterable[Side], *, at_once: int = 1, within: float | None = None
    ) -> None:
        self.failed: dict[str, str] = {}
        self._workers: dict[str, _Worker] = {}
        try:
            self._get_ready(list(sides), at_once, within)
        except BaseException:
            self.close()
            raise

    def _get_ready(self, waiting: list[Side], at_once: int, within: float | None) -> None:
        started = time.perf_counter()
        pending: list[Side] = []
        while waiting or pending:
            while waiting and len(pending) < at_once:
                pending.append(side := waiting.pop(0))
                self._workers[side.name] = _Worker(side)
            left = None if within is None else max(0, started + within - time.perf_counter())
            pipes = [self._workers[side.name].pipe for side in pending]
            ready = multiprocessing.connection.wait(pipes, left)
            answered = [side for side in pending if self._workers[side.name].pipe in ready]
            for side in answered:
                pending.remove(side)
                try:
                    self._workers[side.name].answer()
                except SideFailed as failure:
                    if not side.may_fail:
                        raise
                    self._leave_out(side, str(failure)[:REASON])
                seconds = time.perf_counter() - started
                print(f"{side.name}: ready or not at {seconds:.0f} s", file=sys.stderr, flush=True)
            if not answered:
                for side in [*pending, *waiting]:
                    if side.may_fail:
                        self._leave_out(side, f"not ready after {within:.0f} s")
                pending = [side for side in pending if not side.may_fail]
                waiting = [side for side in waiting if not side.may_fail]
                within = None

    def _leave_out(self, side: Side, reason: str) -> None:
        self.failed[side.name] = reason
        if side.name in self._workers:
            self._workers.pop(side.name).close(patience=0)

    @property
    def names(self) -> list[str]:
        """Of the sides that are ready."""
        return list(self._workers)

    def call(self, name: str, method: str, *arguments: Any) -> Any:
        """What a method of a side's object returns."""
        return self._workers[name].call(method, *arguments)

    def turns(
        self, rounds: int, method: str, *arguments: Any, names: Sequence[str] | None = None
    ) -> dict[str, list[Any]]:
        """What every side returns, `rounds` times in turn, every other round from the last on.

        Args:
          names: of those that take part; None is all that are ready.
        """
        names = self.names if names is None else names
        found: dict[str, list[Any]] = {name: [] for name in names}
        for index in range(rounds):
            for name in names[:: -1 if index % 2 else 1]:
                found[name].append(self.call(name, method, *arguments))
        return found

    def end(self, name: str) -> None:
        """Ends one worker, whose memory others need."""
        self._workers.pop(name).close()

    def close(self) -> None:
        """Ends the workers."""
        for worker in self._workers.values():
            worker.pipe.close()
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
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, side), daemon=True)
        with mock.patch.dict(os.environ, side.environment):
            self._process.start()
        theirs.close()

    def call(self, method: str, *arguments: Any) -> Any:
        self.pipe.send((method, arguments))
        return self.answer()

    def answer(self) -> Any:
        try:
            succeeded, value = self.pipe.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            raise SideFailed(f"{self._name}: the process ended with {code}") from None
        if not succeeded:
            raise SideFailed(f"{self._name}: {value}")
        return value

    def close(self, patience: float = 10) -> None:
        """Ends the process, by force if it has not ended after some seconds."""
        self.pipe.close()
        self._process.join(timeout=patience)
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
    from effnetv2_jax.system.machine import describe_machine

    return describe_machine(packages) | {"command": shlex.join(["python", *sys.argv])}


def write(result: Mapping[str, Any], output: Path | None) -> None:
    """Prints JSON, and keeps it in `output` unless that is None."""
    text = json.dumps(result, indent=2)
    print(text)
    if output:
        output.write_text(text + "\n")
