"""Real processes that meet over loopback, as those of one run do."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import jax
import quick

TESTS = Path(__file__).parent


class Processes:
    """Python processes of one start, each with its share of the virtual devices.

    As a context it ends them in any case.

    Args:
      arguments: of Python, the same for all.
      folder: for what they write to their standard streams.
      count: how many; one is not told of others.
      devices: of all together.
      variables: of the environment, for all.
      own: of each, besides or instead of those of a start by hand.
    """

    def __init__(
        self,
        *arguments: str,
        folder: Path,
        count: int = 1,
        devices: int | None = None,
        variables: Mapping[str, str] | None = None,
        own: Sequence[Mapping[str, str]] | None = None,
    ) -> None:
        shared = environment() | {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str((devices or count) // count),
            "JAX_COMPILATION_CACHE_DIR": str(jax.config.values["jax_compilation_cache_dir"]),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiles faster
            "XLA_FLAGS": quick.xla_flags(os.environ.get("XLA_FLAGS", "")),
            "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        }
        self._outputs: list[Path] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        for mine in own or by_hand(count):
            # A file, as a process that fills a pipe nobody reads keeps the others waiting.
            path = folder / f"output_{time.monotonic_ns()}"
            with path.open("w") as output:
                process = subprocess.Popen(
                    [sys.executable, *arguments],
                    env=shared | dict(mine) | dict(variables or {}),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            self._outputs.append(path)
            self.processes.append(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def finish(self, status: int = 0) -> list[str]:
        """What each has written, once all have ended with this exit status."""
        try:
            statuses = [process.wait(timeout=300) for process in self.processes]
        finally:
            self.kill()
        outputs = self.outputs()
        assert statuses == [status] * len(statuses), "\n".join([str(statuses), *outputs])
        return outputs

    def outputs(self) -> list[str]:
        """What each has written so far."""
        return [path.read_text() for path in self._outputs]

    def run(self) -> bool:
        """Whether all of them still do."""
        return all(process.poll() is None for process in self.processes)

    def kill(self) -> None:
        """Ends them at once."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


def environment() -> dict[str, str]:
    """This process's, without the threads that it has for its virtual devices."""
    return {name: value for name, value in os.environ.items() if name != "NPROC"}


def by_hand(count: int) -> list[dict[str, str]]:
    """The variables of each of so many processes that are started by hand."""
    if count == 1:
        return [{}]
    address = f"127.0.0.1:{free_port()}"
    return [
        {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(count),
            "JAX_PROCESS_ID": str(index),
        }
        for index in range(count)
    ]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
